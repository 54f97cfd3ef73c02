"""The models beside the same models in PyTorch: same initial weights, same batches, same noise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import minillm
from minillm import optim
from minillm.models import GPT, VAE, Autoencoder
from minillm.training import train_step

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle

STEPS = 100
precisions = pytest.mark.parametrize(
    ("dtype", "rtol"), [(np.float64, 1e-5), (np.float32, 1e-3)], ids=["float64", "float32"]
)


def dense(*widths: int, dtype, last=None, activation="ReLU"):
    """Linear layers with an activation between them, and `last` after the last one."""
    layers = []
    for a, b in itertools.pairwise(widths):
        layers += [torch.nn.Linear(a, b, dtype=dtype), getattr(torch.nn, activation)()]
    return torch.nn.Sequential(*layers[:-1], *([last] if last else []))


def copy_linears(model, theirs) -> None:
    """Copy the Linear layers' weights, which come in the same order on both sides."""
    ours = [m for m in model.modules() if isinstance(m, minillm.nn.Linear)]
    others = [m for m in theirs.modules() if isinstance(m, torch.nn.Linear)]
    assert len(ours) == len(others)
    with torch.no_grad():
        for a, b in zip(ours, others):
            b.weight.copy_(torch.tensor(a.weight.numpy()))
            b.bias.copy_(torch.tensor(a.bias.numpy()))


def batches(rows: int, dtype, input_dim: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    data = rng.random((rows, input_dim)).astype(dtype)
    for _ in range(STEPS):
        yield data[rng.integers(0, rows, 32)]


def follow(model, theirs, loss, their_loss, data) -> tuple[list[float], list[float]]:
    """The losses of both over the same Adam steps."""
    mine, other = optim.Adam(model.parameters(), lr=1e-3), torch.optim.Adam(theirs.parameters(), lr=1e-3)
    ours, expected = [], []
    for batch in data:
        ours.append(train_step(model, lambda batch=batch: loss(batch), mine))
        other.zero_grad()
        value = their_loss(batch)
        value.backward()
        other.step()
        expected.append(value.item())
    return ours, expected


@precisions
def test_the_articles_autoencoder(dtype, rtol):
    """Dense(32, relu), Dense(100, sigmoid), Dense(32, relu), Dense(100, sigmoid); BCE, Adam 1e-3, batches of 32."""
    minillm.manual_seed(0)
    kind = torch.float64 if dtype is np.float64 else torch.float32
    model = Autoencoder().to(dtype)
    theirs = torch.nn.Sequential(
        dense(100, 32, 100, dtype=kind, last=torch.nn.Sigmoid()),
        dense(100, 32, 100, dtype=kind, last=torch.nn.Sigmoid()),
    )
    copy_linears(model, theirs)

    def their_loss(batch):
        x = torch.tensor(batch)
        return torch.nn.functional.binary_cross_entropy(theirs(x), x)

    ours, expected = follow(
        model, theirs, lambda b: model.loss(minillm.tensor(b)), their_loss, batches(320, dtype, 100)
    )
    np.testing.assert_allclose(ours, expected, rtol=rtol)
    assert ours[-1] < ours[0]


class TorchVAE(torch.nn.Module):
    def __init__(self, input_dim, hidden, latent_dim, dtype):
        super().__init__()
        self.trunk = torch.nn.Linear(input_dim, hidden, dtype=dtype)
        self.mean = torch.nn.Linear(hidden, latent_dim, dtype=dtype)
        self.logvar = torch.nn.Linear(hidden, latent_dim, dtype=dtype)
        self.decoder = dense(latent_dim, hidden, input_dim, dtype=dtype)

    def loss(self, x, noise):
        h = torch.relu(self.trunk(x))
        mean, logvar = self.mean(h), self.logvar(h)
        logits = self.decoder(mean + torch.exp(0.5 * logvar) * noise)
        nll = torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1)
        kl = -0.5 * (1 + logvar - mean**2 - logvar.exp()).sum(1)
        return (nll + kl).mean()


@precisions
@pytest.mark.parametrize(("input_dim", "hidden", "latent_dim"), [(64, 128, 8), (784, 400, 20)])
def test_the_vae(input_dim, hidden, latent_dim, dtype, rtol):
    minillm.manual_seed(0)
    kind = torch.float64 if dtype is np.float64 else torch.float32
    model = VAE(input_dim, (hidden,), latent_dim).to(dtype)
    theirs = TorchVAE(input_dim, hidden, latent_dim, kind)
    copy_linears(model, theirs)
    noise = np.random.default_rng(1)
    data = [(b, noise.standard_normal((32, latent_dim)).astype(dtype)) for b in batches(128, dtype, input_dim)]
    ours, expected = follow(
        model, theirs, lambda b: model.loss(minillm.tensor(b[0]), minillm.tensor(b[1])),
        lambda b: theirs.loss(torch.tensor(b[0]), torch.tensor(b[1])), data,
    )  # fmt: skip
    np.testing.assert_allclose(ours, expected, rtol=rtol)
    assert ours[-1] < ours[0]


class TorchGPT(torch.nn.Module):
    """The same sums, written with PyTorch's functions, on parameters of the same names."""

    def __init__(self, model: GPT):
        super().__init__()
        self.c = model.config
        names = {n: torch.nn.Parameter(torch.tensor(p.numpy())) for n, p in model.named_parameters()}
        self.p = names
        for n, p in names.items():
            self.register_parameter(n.replace(".", "_"), p)

    def forward(self, ids):
        f, p, c = torch.nn.functional, self.p, self.c
        x = p["token.weight"][ids] + p["position.weight"][: ids.shape[1]]
        for i in range(c.layers):
            b = f"blocks.{i}."
            h = f.layer_norm(x, (c.width,), p[b + "norm1.weight"], p[b + "norm1.bias"])
            qkv = f.linear(h, p[b + "attention.in_proj_weight"], p[b + "attention.in_proj_bias"]).chunk(3, -1)
            q, k, v = (t.unflatten(-1, (c.heads, -1)).transpose(1, 2) for t in qkv)
            scores = q @ k.transpose(-2, -1) / (c.width // c.heads) ** 0.5
            scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
            h = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
            x = x + f.linear(h, p[b + "attention.out_proj.weight"], p[b + "attention.out_proj.bias"])
            h = f.layer_norm(x, (c.width,), p[b + "norm2.weight"], p[b + "norm2.bias"])
            h = f.gelu(f.linear(h, p[b + "mlp.0.weight"], p[b + "mlp.0.bias"]))
            x = x + f.linear(h, p[b + "mlp.2.weight"], p[b + "mlp.2.bias"])
        return f.layer_norm(x, (c.width,), p["norm.weight"], p["norm.bias"]) @ p["token.weight"].T


def test_gpt_forward_and_backward():
    minillm.manual_seed(0)
    rng = np.random.default_rng(0)
    model = GPT(13, context=9, layers=2, heads=2, width=12).double()
    for p in model.parameters():
        p.data += 0.3 * rng.standard_normal(p.shape)  # away from the small initial weights: every path counts
    theirs = TorchGPT(model)
    ids, targets = rng.integers(0, 13, (4, 9)), rng.integers(0, 13, (4, 9))
    targets[0, :3] = -100
    logits = theirs(torch.tensor(ids))
    np.testing.assert_allclose(model(ids).numpy(), logits.detach().numpy(), rtol=1e-9, atol=1e-9)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(targets).flatten())
    loss.backward()
    ours = model.loss(ids, targets)
    ours.backward()
    assert ours.item() == pytest.approx(loss.item(), rel=1e-9)
    for name, p in model.named_parameters():
        np.testing.assert_allclose(p.grad.numpy(), theirs.p[name].grad.numpy(), rtol=1e-9, atol=1e-11, err_msg=name)

"""Train the VAE on images, beside the mean image and the entropy of the pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import explain, optim
from ..baselines import PCA, MeanImage, bernoulli_entropy
from ..explain import Metric, Report
from ..models import VAE
from ..random import Generator, manual_seed
from ..recording import no_grad
from ..tensor import Tensor
from ..training import fit
from .base import Common, Outcome, draw_losses, image_data, in_batches, setting, words


@dataclass(frozen=True)
class Settings:
    epochs: int = setting(60, "passes over the training data")
    batch_size: int = setting(64, "examples a step")
    lr: float = setting(1e-3, "Adam's learning rate")
    hidden: tuple[int, ...] = setting((256,), "widths of the trunk, like 400 or 512,256; the decoder mirrors them")
    latent_dim: int = setting(8, "size of the latent z")
    beta: float = setting(1.0, "weight of the KL term")
    likelihood: str = setting("bernoulli", "p(x|z)", choices=("bernoulli", "gaussian"))
    std: float = setting(0.1, "standard deviation of the Gaussian likelihood")
    activation: str = setting("relu", "activation of the hidden layers")


def train(settings: Settings, common: Common) -> Outcome:
    """Fit on the training images; measure the bounds on the test images."""
    train_set, test_set = image_data(common.data)
    things, number = words(train_set)
    x, test = train_set.inputs, test_set.inputs
    manual_seed(common.seed)
    names = ("hidden", "latent_dim", "beta", "likelihood", "std", "activation")
    model = VAE(x.shape[1], **{n: getattr(settings, n) for n in names})
    model.to(common.device)
    history = fit(
        model, Tensor(x).to(common.device), optimizer=optim.Adam(model.parameters(), lr=settings.lr),
        epochs=settings.epochs, batch_size=settings.batch_size, validation=Tensor(test).to(common.device),
        seed=common.seed, progress=common.progress, title="vae",
    )  # fmt: skip

    def on_device(images: Any) -> Tensor:
        return Tensor(np.ascontiguousarray(images)).to(common.device)

    def bound(x: Tensor) -> np.ndarray:
        out = model(x)
        return (model.log_likelihood(out.logits, x) - out.kl).numpy()  # without beta: what bounds log p(x)

    with no_grad():
        draws = [in_batches(lambda b: bound(on_device(b)), test).mean() for _ in range(8)]  # a single one is noisy
        minus_elbo = -float(np.mean(draws))
        some = test[:1000]
        weighted = -float(in_batches(lambda b: model.log_prob(on_device(b), 64).numpy(), some, 100).mean())
        means = in_batches(lambda b: model.encode(on_device(b))[0].numpy(), test[:2000])
        rebuilt = model.decode(on_device(means[:12])).numpy()
        kl = in_batches(lambda b: _kl_per_latent(*model.encode(on_device(b))), some).mean(0)  # (latent_dim,)
    mean = MeanImage().fit(x)
    bernoulli = model.config.likelihood == "bernoulli"
    if bernoulli:
        baseline, floor = mean.negative_log_likelihood(test), bernoulli_entropy(test) * test.shape[1]
        floor_name = f"entropy of the {number}s"
    else:
        pca = PCA(min(model.config.latent_dim, *x.shape)).fit(x)
        baseline, floor = mean.gaussian_negative_log_likelihood(test), pca.negative_log_likelihood(test)
        floor_name = f"probabilistic PCA, {pca.components} components"
    metrics = [
        Metric(
            name, value, f"nats per {things[:-1]}", baseline, f"mean of the {things}", floor, floor_name,
            floor_is_bound=bernoulli,
        )
        for name, value in ((f"-ELBO on unseen {things}", minus_elbo), ("-log p(x) from 64 samples", weighted))
    ]  # fmt: skip

    def draw(report: Report) -> None:
        draw_losses(
            report, {"training": history.curve("loss", "epoch"), "unseen": history.curve("validation_loss", "epoch")},
            "-ELBO, which is at least -log p(x): how many nats an example costs under the model. Lower is better.",
            f"-ELBO against epoch, training and unseen {things}",
            xlabel="epoch", ylabel=f"-ELBO, nats per {things[:-1]}",
        )  # fmt: skip
        if test_set.image_shape:
            _draw_images(report, model, test, rebuilt, kl, test_set.image_shape, common.device)
        if test_set.labels is not None:
            report.figure(
                explain.latent_map(means, test_set.labels[: len(means)]),
                f"Where unseen images land in the {model.config.latent_dim}-dimensional latent space, by class. "
                "The model was never told the classes.",
                "Scatter plot of latent means, one colour a class",
            )

    about = (
        f"{len(x):,} {things} to train on, {len(test):,} to test: {train_set.description}; licence: {train_set.licence}"
    )
    return Outcome("vae", "Variational autoencoder", model, history, about, metrics, draw)


def _kl_per_latent(mean: Tensor, logvar: Tensor) -> np.ndarray:
    """KL(q(z_l|x) || N(0, 1)) of each latent: (B, latent_dim). About 0: the model does not use it."""
    return ((logvar.exp() + mean * mean - 1 - logvar) * 0.5).numpy()


@no_grad()
def _draw_images(
    report: Report, model: VAE, test: Any, rebuilt: Any, kl: Any, shape: tuple[int, int], device: str
) -> None:
    report.figure(
        explain.reconstructions(test[:12], rebuilt, shape, value_range=(0, 1)),
        "Twelve unseen images, and their reconstructions from the mean of q(z|x).",
        "Original images above their reconstructions",
    )
    samples = model.sample(48, Generator(1)).numpy().reshape(-1, *shape)
    report.figure(
        explain.image_grid(samples, columns=12, value_range=(0, 1)),
        "New images: z drawn from N(0, 1), decoded. None of them was in the data.",
        "A grid of images sampled from the model",
    )
    used = np.argsort(-kl)[:6]
    steps = np.linspace(-2.5, 2.5, 11, dtype=np.float32)
    z = np.zeros((len(used), len(steps), len(kl)), np.float32)
    for row, latent in enumerate(used):
        z[row, :, latent] = steps
    decoded = model.decode(Tensor(z.reshape(-1, len(kl))).to(device)).numpy()
    report.figure(
        explain.traversals(
            decoded.reshape(len(used), len(steps), *shape), [f"z{i}: {kl[i]:.1f} nats" for i in used],
            [f"{s:+.1f}" for s in steps], value_range=(0, 1),
        ),
        "What a latent does: one of them moves from -2.5 to 2.5, the others stay at 0. "
        "The busiest ones, with the information each carries.",
        "Decoded images while one latent at a time moves",
    )  # fmt: skip

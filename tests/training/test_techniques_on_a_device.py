"""The training techniques on arrays that, like a GPU's, refuse to be mixed with NumPy's: the same numbers."""

from __future__ import annotations

import numpy as np

import minillm
from minillm import optim
from minillm.models import GPT
from minillm.testing import strict
from minillm.training import EMA, accumulate, find_lr
from minillm.training.label_smoothing import smoothed_cross_entropy
from minillm.training.noise_scale import squared_norms
from minillm.training.z_loss import cross_entropy_with_z_loss


def numbers(device):
    minillm.manual_seed(0)
    model = GPT(7, context=8, layers=2, heads=2, width=8, stochastic_depth=0.5).to(device)
    matrices, others = optim.muon_groups(model)
    both = optim.Optimizers([optim.Muon(matrices, bf16=False), optim.AdamW(others, lr=0.01)])
    ema = EMA(model, 0.9)
    ids = minillm.tensor(np.random.default_rng(0).integers(0, 7, (6, 9))).to(device)
    x, y = ids[:, :-1], ids[:, 1:]
    parts = [(x[:3], y[:3]), (x[3:], y[3:])]

    def loss(part):
        return model.loss(*part)

    got = [*find_lr(model, both, [(x, y)], model.loss, start=1e-3, steps=12).losses]
    for _ in range(3):
        both.zero_grad()
        got.append(accumulate(loss, parts, [1, 1]))
        both.step(clip_norm=1.0)
        ema.update()
    both.load_state_dict(both.state_dict())
    ema.load_state_dict(ema.state_dict())
    with ema.swapped():
        got.append(loss((x, y)).item())
    got += squared_norms(loss, parts, model.parameters())
    logits = minillm.tensor(np.random.default_rng(1).normal(size=(6, 7))).to(device)
    lessons = smoothed_cross_entropy(logits, y[:, 0], 0.1), cross_entropy_with_z_loss(logits, y[:, 0])
    return got + [loss.item() for loss in lessons]


def test_the_same_numbers():
    strict.install()
    np.testing.assert_allclose(numbers("strict"), numbers("cpu"), rtol=1e-3)

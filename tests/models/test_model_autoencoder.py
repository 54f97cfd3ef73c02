"""The autoencoder: the article's layers, shapes, losses; and what every model's config does."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

import minillm
from minillm import nn, optim
from minillm.baselines import PCA
from minillm.models import GPT, VAE, AttentionModel, Autoencoder, linear_autoencoder
from minillm.training import fit

rng = np.random.default_rng(0)


def layers(sequential: nn.Sequential) -> list:
    """[(in, out, activation), ...] of Linear layers, each with what follows it."""
    found: list = []
    for layer in sequential:
        if isinstance(layer, nn.Linear):
            found.append((layer.in_features, layer.out_features, None))
        else:
            found[-1] = (*found[-1][:2], type(layer).__name__)
    return found


def test_the_defaults_are_the_articles():
    model = Autoencoder()
    assert model.config.input_dim == 100
    assert layers(model.encoder) == [(100, 32, "ReLU"), (32, 100, "Sigmoid")]
    assert layers(model.decoder) == [(100, 32, "ReLU"), (32, 100, None)]  # ends in logits ...
    assert isinstance(model.output, nn.Sigmoid)  # ... and this is the sigmoid of the last layer
    assert model.num_parameters() == 2 * (100 * 32 + 32 + 32 * 100 + 100)


def test_shapes_and_range():
    model = Autoencoder(20, encoding_dim=5, output_dim=7)
    x = minillm.rand(3, 20)
    assert model.encode(x).shape == (3, 7)
    out = model(x)
    assert out.shape == (3, 20) and out.dtype == np.float32
    assert out.numpy().min() >= 0 and out.numpy().max() <= 1
    np.testing.assert_array_equal(model.decode(model.encode(x)).numpy(), out.numpy())


def test_loss_is_the_cross_entropy_of_the_reconstruction():
    model = Autoencoder(20, 5, 7).double()
    x = minillm.tensor(rng.random((6, 20)))
    p = model(x).numpy()
    expected = -(x.numpy() * np.log(p) + (1 - x.numpy()) * np.log(1 - p))
    assert model.loss(x).item() == pytest.approx(expected.mean(), rel=1e-12)
    assert model.loss(x, reduction="sum").item() == pytest.approx(expected.sum(), rel=1e-12)


def test_loss_of_other_outputs_is_the_squared_error():
    model = Autoencoder(20, 5, 7, output_activation="identity").double()
    x = minillm.tensor(rng.standard_normal((6, 20)))
    assert model.loss(x).item() == pytest.approx(((model(x).numpy() - x.numpy()) ** 2).mean(), rel=1e-12)


def test_widths_of_your_own():
    model = Autoencoder(20, encoder=(16, 4), decoder=(16, 20), code_activation="identity")
    assert layers(model.encoder) == [(20, 16, "ReLU"), (16, 4, "Identity")]
    assert layers(model.decoder) == [(4, 16, "ReLU"), (16, 20, None)]


def test_the_linear_autoencoder_finds_the_space_of_pca():
    x = (rng.standard_normal((200, 3)) @ rng.standard_normal((3, 10))).astype(np.float32)
    x += 0.1 * rng.standard_normal(x.shape).astype(np.float32)
    x -= x.mean(0)
    minillm.manual_seed(0)
    model = linear_autoencoder(10, 3)
    fit(model, x, optimizer=optim.Adam(model.parameters(), lr=1e-2), epochs=150, batch_size=50, progress=False)
    pca = PCA(3).fit(x).reconstruction_error(x)
    assert pca <= model.loss(minillm.tensor(x)).item() < 1.1 * pca  # PCA is the best that a linear code can do


# ------------------------------------------------------------------------------------ configs, of every model

SMALL = {
    Autoencoder: {"input_dim": 6, "encoder": (5, 3), "decoder": (5, 6), "activation": "tanh"},
    VAE: {"input_dim": 6, "hidden": (5, 4), "latent_dim": 2, "likelihood": "gaussian", "std": 0.3},
    AttentionModel: {"features": 3, "length": 5, "classes": 4, "width": 8, "heads": 2, "score": "scaled_dot"},
    GPT: {"vocab_size": 11, "context": 6, "layers": 2, "heads": 2, "width": 8, "bias": False},
}
models = pytest.mark.parametrize("cls", SMALL, ids=lambda cls: cls.__name__)


@models
def test_a_config_survives_json(cls):
    model = cls(**SMALL[cls])
    again = cls.from_config(json.loads(json.dumps(asdict(model.config))))
    assert again.config == model.config
    assert {n: p.shape for n, p in again.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}
    assert cls.from_config(model.config).config == model.config


@models
def test_an_unknown_setting_names_the_nearest(cls):
    name = next(iter(SMALL[cls]))
    with pytest.raises(ValueError, match=f"no setting '{name}x'.*Did you mean '{name}'"):
        cls.from_config({**SMALL[cls], name + "x": 1})
    last = list(SMALL[cls])[-1]
    with pytest.raises(ValueError, match=f"Did you mean '{last}'"):
        cls(**{**SMALL[cls], last + "s": 1})


@models
def test_a_config_that_is_none(cls):
    with pytest.raises(ValueError, match="expected a dictionary"):
        cls.from_config([1, 2])


@pytest.mark.parametrize(
    ("cls", "name", "value"),
    [
        (Autoencoder, "input_dim", 0), (Autoencoder, "encoding_dim", -1), (Autoencoder, "encoder", ()),
        (Autoencoder, "encoder", (5, 0)), (Autoencoder, "decoder", (5, 7)), (Autoencoder, "activation", "rellu"),
        (VAE, "input_dim", 0), (VAE, "latent_dim", 0), (VAE, "hidden", (5, 0)), (VAE, "std", 0.0), (VAE, "std", -1.0),
        (VAE, "beta", -1.0), (VAE, "likelihood", "gauss"), (VAE, "latent_dim", 2.5), (VAE, "std", float("nan")),
        (AttentionModel, "features", 0), (AttentionModel, "length", 0), (AttentionModel, "classes", -1),
        (AttentionModel, "heads", 3), (AttentionModel, "heads", 0), (AttentionModel, "score", "dot"),
        (AttentionModel, "blocks", -1), (AttentionModel, "dropout", 1.5),
        (GPT, "vocab_size", 0), (GPT, "context", 0), (GPT, "layers", 0), (GPT, "heads", 3), (GPT, "heads", 0),
        (GPT, "width", -8), (GPT, "dropout", -0.1), (GPT, "width", "8"),
    ],
)  # fmt: skip
def test_bad_values_are_errors_in_words(cls, name, value):
    with pytest.raises(ValueError, match=cls.__name__ + "|activation|Attention|Dropout") as error:
        cls(**{**SMALL[cls], name: value})
    assert len(str(error.value)) > 20


def test_the_nearest_activation():
    with pytest.raises(ValueError, match="Did you mean 'softplus'"):
        Autoencoder(6, activation="soft_plus")

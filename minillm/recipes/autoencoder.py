"""Train the autoencoder on images, beside the mean image and PCA with as many components."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import explain, optim
from ..baselines import PCA, MeanImage, bernoulli_entropy
from ..explain import Metric, Report
from ..models import Autoencoder
from ..random import manual_seed
from ..recording import no_grad
from ..tensor import Tensor
from ..training import evaluate, fit
from .base import Common, Outcome, draw_losses, image_data, in_batches, setting, words


@dataclass(frozen=True)
class Settings:
    epochs: int = setting(100, "passes over the training data")
    batch_size: int = setting(32, "examples a step")
    lr: float = setting(1e-3, "Adam's learning rate")
    encoding_dim: int = setting(32, "width of the narrow layer of encoder and decoder")
    output_dim: int = setting(100, "width of the code between encoder and decoder")
    encoder: tuple[int, ...] | None = setting(
        None, "widths of the encoder's layers, like 128,32 (default: ENCODING_DIM,OUTPUT_DIM)"
    )
    decoder: tuple[int, ...] | None = setting(None, "widths of the decoder's layers (default: ENCODING_DIM,input)")
    activation: str = setting("relu", "activation inside: relu, gelu, tanh, identity, ...")
    code_activation: str = setting("sigmoid", "activation after the encoder's last layer")
    output_activation: str = setting(
        "sigmoid", "activation of the output; sigmoid is trained with binary cross-entropy, others with squared error"
    )


def train(settings: Settings, common: Common) -> Outcome:
    """Fit on the training images; measure on the test images."""
    train_set, test_set = image_data(common.data)
    things, number = words(train_set)
    x, test = train_set.inputs, test_set.inputs
    manual_seed(common.seed)
    names = ("encoding_dim", "output_dim", "encoder", "decoder", "activation", "code_activation", "output_activation")
    chosen = {n: getattr(settings, n) for n in names}
    if settings.decoder is None and settings.encoder is not None:
        chosen["decoder"] = (*reversed(settings.encoder[:-1]), x.shape[1])
    model = Autoencoder(x.shape[1], **chosen)
    model.to(common.device)
    inputs, held_out = Tensor(x).to(common.device), Tensor(test).to(common.device)
    history = fit(
        model, inputs, optimizer=optim.Adam(model.parameters(), lr=settings.lr),
        epochs=settings.epochs, batch_size=settings.batch_size, validation=held_out, seed=common.seed,
        progress=common.progress, title="autoencoder",
    )  # fmt: skip

    @no_grad()
    def reconstruct(images: Any) -> np.ndarray:
        return model(Tensor(images).to(common.device)).numpy()

    rebuilt = in_batches(reconstruct, test)
    widths = [*model.config.encoder_widths, *model.config.decoder_widths[:-1]]
    narrow = min(widths)
    pca = PCA(min(narrow, x.shape[1], len(x))).fit(x)
    mean = MeanImage().fit(x)
    metrics = [
        Metric(
            f"squared error on unseen {things}", float(((rebuilt - test) ** 2).mean()), f"per {number}",
            baseline=mean.mse(test), baseline_name=f"mean of the {things}", floor=pca.reconstruction_error(test),
            floor_name=f"PCA, {pca.components} components", floor_is_bound=False,
        )
    ]  # fmt: skip
    if model.config.output_activation == "sigmoid":
        metrics.append(
            Metric(
                f"cross-entropy on unseen {things}",
                evaluate(model, held_out),
                f"nats per {number}",
                baseline=mean.bce(test),
                baseline_name=f"mean of the {things}",
                floor=bernoulli_entropy(test),
                floor_name="perfect reconstruction",
            )
        )

    def draw(report: Report) -> None:
        sigmoid = model.config.output_activation == "sigmoid"
        draw_losses(
            report, {"training": history.curve("loss", "epoch"), "unseen": history.curve("validation_loss", "epoch")},
            f"The loss on the {things} it trains on, and on {things} it never sees.",
            f"Loss against epoch, training and unseen {things}",
            xlabel="epoch", ylabel=f"cross-entropy, nats per {number}" if sigmoid else f"squared error per {number}",
        )  # fmt: skip
        if test_set.image_shape:
            with_pca = pca.inverse_transform(pca.transform(test[:12]))
            report.figure(
                explain.reconstructions(
                    test[:12],
                    rebuilt[:12],
                    test_set.image_shape,
                    extra={f"PCA, {pca.components}": with_pca},
                    value_range=(0, 1),
                ),
                f"Twelve unseen images, what the model makes of them through {narrow} numbers, and PCA with as many.",
                "Original images above their reconstructions by the model and by PCA",
            )
            report.figure(
                explain.weights_as_images(model.encoder[0].weight.numpy()[:32], test_set.image_shape),
                "What the first layer looks for: the weights of its units (red: bright here, blue: dark here).",
                "First-layer weights drawn as images",
            )

    about = (
        f"{len(x):,} {things} to train on, {len(test):,} to test: {train_set.description}; licence: {train_set.licence}"
    )
    return Outcome("autoencoder", "Autoencoder", model, history, about, metrics, draw)

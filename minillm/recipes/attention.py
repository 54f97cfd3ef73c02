"""Train the attention classifier on images read row by row, beside a logistic regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import explain, optim
from .. import functional as F
from ..baselines import LogisticRegression
from ..data import DataError
from ..explain import Metric, Report
from ..models import AttentionModel
from ..random import manual_seed
from ..recording import no_grad
from ..tensor import Tensor
from ..training import fit
from .base import Common, Outcome, draw_losses, image_data, setting


@dataclass(frozen=True)
class Settings:
    epochs: int = setting(30, "passes over the training data")
    batch_size: int = setting(32, "examples a step")
    lr: float = setting(2e-3, "AdamW's learning rate")
    weight_decay: float = setting(0.05, "AdamW's weight decay")
    width: int = setting(64, "size of the states s_i")
    score: str = setting("additive", "score of two neighbouring states", choices=("additive", "scaled_dot"))
    blocks: int = setting(1, "transformer blocks in the encoder (0: each row on its own)", least=0)
    heads: int = setting(4, "attention heads of each block")
    dropout: float = setting(0.1, "dropout inside the blocks")


def train(settings: Settings, common: Common) -> Outcome:
    """Fit on the training images; measure accuracy and cross-entropy on the test images."""
    train_set, test_set = image_data(common.data)
    if train_set.image_shape is None or train_set.labels is None or test_set.labels is None:
        raise DataError(
            "the attention classifier reads images row by row and needs their classes: an MNIST folder or 'digits'"
        )
    truth = test_set.labels  # (N,)
    h, w = train_set.image_shape
    classes = int(max(train_set.labels.max(), truth.max())) + 1
    manual_seed(common.seed)
    names = ("width", "score", "blocks", "heads", "dropout")
    model = AttentionModel(w, h, classes, **{n: getattr(settings, n) for n in names})
    model.to(common.device)

    def tensors(data: Any) -> tuple[Tensor, Tensor]:
        return Tensor(data.inputs.reshape(-1, h, w)).to(common.device), Tensor(data.labels).to(common.device)

    (x, y), (test, test_y) = tensors(train_set), tensors(test_set)
    optimizer = optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    history = fit(
        model, x, y, optimizer=optimizer, epochs=settings.epochs, batch_size=settings.batch_size,
        validation=(test, test_y), seed=common.seed, progress=common.progress, title="attention",
    )  # fmt: skip
    logits, weights = _predict(model, test)
    predictions = logits.argmax(-1)
    linear = LogisticRegression().fit(train_set.inputs, train_set.labels)
    metrics = [
        Metric(
            "accuracy on unseen images", 100 * float((predictions == truth).mean()), "%",
            baseline=100 * linear.accuracy(test_set.inputs, truth), baseline_name="logistic regression",
            floor=100.0, floor_name="no mistakes", better="higher",
        ),
        Metric(
            "cross-entropy on unseen images", F.cross_entropy(Tensor(logits), Tensor(truth)).item(), "nats",
            baseline=linear.cross_entropy(test_set.inputs, truth), baseline_name="logistic regression",
            floor=0.0, floor_name="certain and right",
        ),
    ]  # fmt: skip

    def draw(report: Report) -> None:
        draw_losses(
            report, {"training": history.curve("loss", "epoch"), "unseen": history.curve("validation_loss", "epoch")},
            "The loss on the images it trains on, and on unseen ones. Dashed: logistic regression on the unseen ones.",
            "Cross-entropy against epoch, training and unseen images",
            {"logistic regression": linear.cross_entropy(test_set.inputs, truth)},
            xlabel="epoch", ylabel="cross-entropy, nats",
        )  # fmt: skip
        wrong = np.flatnonzero(predictions != truth)[:4]
        right = np.flatnonzero(predictions == truth)[: 12 - len(wrong)]
        shown = np.concatenate([right, wrong])
        report.figure(
            explain.attention_over_image(
                test_set.inputs[shown].reshape(-1, h, w), weights[shown], predictions[shown], truth[shown]
            ),
            "Where the model looks: the weight of each row of pixels, beside unseen images. The last ones are "
            "mistakes, if there were any.",
            "Images with the attention weight of every row beside them",
        )

    about = f"{len(x):,} images to train on, {len(test):,} to test, read as {h} rows of {w} pixels: "
    about += f"{train_set.description}; licence: {train_set.licence}"
    return Outcome("attention", "Attention classifier", model, history, about, metrics, draw)


@no_grad()
def _predict(model: AttentionModel, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, classes) and attention weights (N, rows), a thousand images at a time."""
    outs = [model(x[i : i + 1000]) for i in range(0, len(x), 1000)]
    return tuple(np.concatenate([getattr(o, name).numpy() for o in outs]) for name in ("output", "weights"))  # type: ignore[return-value]

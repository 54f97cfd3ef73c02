"""Arrays as plausible as those of trained models, and every picture and a full report made of them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from minillm import explain

SAMPLES = [
    ("step 0", "qX;\n\n  zP'w&k<b>nE"),
    ("step 500", "\nThe the and wind\n    to seat of there"),
    ("step 2,000", "ROMEO:\n  What light is this,\nand who shall come to-night?"),
]


def glyphs(n: int, seed: int = 0, side: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """n images (n, side, side) in [0, 1] of rings and bars, and their classes (n,) in 0..9."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, n)
    y, x = np.mgrid[0:side, 0:side] / (side - 1) - 0.5
    images = []
    for label in labels:
        angle, radius = label * np.pi / 10 + rng.normal(0, 0.05), 0.15 + 0.02 * label
        ring = np.exp(-((np.hypot(x, y) - radius) ** 2) / 0.006)
        bar = np.exp(-((x * np.cos(angle) + y * np.sin(angle)) ** 2) / 0.004) * (np.hypot(x, y) < 0.4)
        images.append(np.clip(ring * (label % 2) + bar, 0, 1))
    return np.array(images), labels


def history(steps: int = 400, seed: int = 0) -> dict[str, list[tuple[float, float]]]:
    rng = np.random.default_rng(seed)
    at = np.arange(1, steps + 1) * 5
    falling = 1.3 + 2.9 * np.exp(-at / 300)
    return {
        "train": [(int(s), float(v)) for s, v in zip(at, falling + rng.normal(0, 0.08, steps) * falling / 4)],
        "validation": [(int(s), float(v) + 0.06) for s, v in zip(at[::20], falling[::20])],
    }


@cache
def all_figures() -> dict[str, Any]:
    """Name -> Figure, every kind of picture at least once; made once, as no test changes them."""
    rng = np.random.default_rng(1)
    images, labels = glyphs(400)
    n, h, w = images.shape
    flat = images.reshape(n, -1)
    mean = flat.mean(0)
    _, _, directions = np.linalg.svd(flat - mean, full_matrices=False)
    pca = (flat - mean) @ directions[:2].T @ directions[:2] + mean
    model = (flat - mean) @ directions[:6].T @ directions[:6] + mean
    centres = rng.normal(0, 2.2, (10, 2))
    plane = centres[labels] + rng.normal(0, 0.5, (n, 2))
    space = np.concatenate([plane, rng.normal(0, 0.3, (n, 4))], axis=1) @ np.linalg.qr(rng.normal(size=(6, 6)))[0]
    steps = np.linspace(-2, 2, 9)
    walk = np.array([[(mean + s * 3 * d).reshape(h, w) for s in steps] for d in directions[:5]])
    row_scores = images[:8].sum(2) * 0.8 + rng.normal(0, 0.4, (8, h))
    row_weights = np.exp(row_scores) / np.exp(row_scores).sum(1, keepdims=True)
    said = labels[:8].copy()
    said[3] = (said[3] + 1) % 10
    text = list("First Citizen:\nBe")
    t = len(text)
    scores = rng.normal(0, 1.5, (4, t, t))
    scores[1] -= 0.7 * np.abs(np.arange(t)[:, None] - np.arange(t) - 1)
    scores[:, np.triu(np.ones((t, t), bool), 1)] = -np.inf
    maps = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    words = ["The", " quick", " brown", " fox", " jumps"]
    word_maps = rng.dirichlet(np.ones(5), (3, 5))
    vocabulary = list("etaoinshrdlucmfwypvbgkjqxz \n$")
    logits = rng.normal(0, 2, len(vocabulary))
    logits[-3:] = 5, 4.2, 3.5
    probabilities = np.exp(logits) / np.exp(logits).sum()
    return {
        "loss": explain.loss_curves(
            history(), {"uniform guess": 4.17, "letter frequencies": 3.31, "entropy of the data": 1.22},
            ylabel="loss (nats per character)",
        ),
        "loss_log_close": explain.loss_curves(
            {"train": [(s, 0.9 * np.exp(-s / 20) + 0.021) for s in range(0, 101, 5)],
             "validation": [(s, 0.9 * np.exp(-s / 20) + 0.023) for s in range(0, 101, 5)]},
            {"mean image": 0.07, "PCA with two components": 0.024, "PCA with as many numbers as the model": 0.0225},
            xlabel="epoch", ylabel="mean squared error", log=True, title="Autoencoder $cost$",
        ),
        "grid": explain.image_grid(images[:24], 8, [f"says {i}\nis {j}" for i, j in zip(labels, labels[:24])]),
        "grid_plain": explain.image_grid(images[:37], 12),
        "reconstructions": explain.reconstructions(
            images, model, (h, w), extra={"PCA, 2 numbers": pca, "mean image": np.broadcast_to(mean, flat.shape)}
        ),
        "latent_plane": explain.latent_map(plane, labels),
        "latent_projected": explain.latent_map(space, labels, title="Means of q(z | x)"),
        "latent_many": explain.latent_map(
            rng.normal(size=(1500, 2)), rng.integers(0, 3, 1500), names=["shirt", "boot", "a $ bag"]
        ),
        "traversals": explain.traversals(walk, [f"latent {i + 1}" for i in range(5)], [f"{s:+.1f} σ" for s in steps]),
        "attention_image": explain.attention_over_image(images[:8], row_weights, said, labels[:8]),
        "attention_text": explain.attention_maps(maps, text),
        "attention_words": explain.attention_maps(word_maps, words, names=["near", "same word", "first"]),
        "attention_one": explain.attention_maps(word_maps[:1, :3], words[:3], words),
        "next": explain.next_token_bars(vocabulary, probabilities, context="But soft! What light through\nyonder "),
        "weights": explain.weights_as_images(directions[:24], (h, w), 12),
    }  # fmt: skip


def metrics() -> list[explain.Metric]:
    return [
        explain.Metric(
            "Reconstruction error", 0.0123, "MSE per pixel", 0.0421, "PCA with 8 numbers", 0.0, "perfect copy"
        ),
        explain.Metric("Test accuracy", 96.4, "%", 88.0, "nearest class mean", 100.0, "all right", better="higher"),
        explain.Metric("Negative ELBO", 31.9, "nats", 30.2, "Gaussian per pixel"),
        explain.Metric("Validation loss", 1.36, "nats/char", 3.31, "letter frequencies", 1.22, "entropy estimate"),
        explain.Metric("Log-likelihood", -104.2, "nats", -180.0, "one Gaussian", better="higher"),
        explain.Metric("A run that failed", float("nan"), "nats", 1.0, "guessing"),
    ]


def full_report(title: str = "Four small models", hostile: str = "") -> explain.Report:
    """A report with every kind of block; `hostile` is put into every text that a user can pass."""
    figures = all_figures()
    report = explain.Report(title + hostile, "Trained on this machine in 3 minutes, on data that ships." + hostile)
    report.text("Each section shows what one model learned.\n\nLower loss is better." + hostile)
    report.section("At a glance" + hostile, "Each figure beside what it must beat." + hostile)
    report.metrics(metrics())
    if hostile:
        report.metrics([explain.Metric(hostile, 1.0, hostile, 2.0, hostile, 0.5, hostile)])
    report.table(
        [["autoencoder", 3210, 12.3, None], ["VAE" + hostile, 4321, 20.1, 0.5]],
        ["model" + hostile, "parameters", "seconds", "KL"],
        "What was trained." + hostile,
    )
    for name, figure in figures.items():
        report.section(name.replace("_", " ").capitalize())
        report.figure(figure, f"Picture {name}: what it shows and how to read it." + hostile, f"{name}{hostile}")
    report.section("Samples")
    report.samples([(label + hostile, text + hostile) for label, text in SAMPLES])
    report.section("Samples")
    report.code("minillm train vae --steps 2000" + hostile)
    report.code('{"lr": 0.001}' + hostile, fold="All settings" + hostile)
    return report

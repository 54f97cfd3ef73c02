"""The mean image: the reconstruction by a model that never looks at its input."""

from __future__ import annotations

from typing import Any

import numpy as np

from .entropy import checked_pixels


class MeanImage:
    """Fit on images x (N, D), pixels in [0, 1]; scores of other images (M, D) when each is answered with the mean.

    An autoencoder that scores no better has learned nothing of the single image.
    """

    def fit(self, x: Any) -> MeanImage:
        x = checked_pixels(x)
        if x.ndim != 2:
            raise ValueError(f"images of shape {x.shape}: expected (N, D), one row for each image")
        self.mean = x.mean(axis=0)  # (D,)
        # Laplace's rule of succession: a pixel that was always black must not make one grey pixel infinitely costly
        self.probability = (x.sum(axis=0) + 1) / (len(x) + 2)  # (D,)
        self.variance = max(float(np.mean((x - self.mean) ** 2)), 1e-12)  # one for all pixels
        return self

    def mse(self, x: Any) -> float:
        """Mean over images and pixels of (x - mean)^2."""
        return float(np.mean((self._checked(x) - self.mean) ** 2))

    def bce(self, x: Any) -> float:
        """Binary cross-entropy, nats per pixel: mean of -x log p - (1 - x) log(1 - p), p the smoothed mean image."""
        x, p = self._checked(x), self.probability
        return float(np.mean(-x * np.log(p) - (1 - x) * np.log1p(-p)))

    def negative_log_likelihood(self, x: Any) -> float:
        """Nats per image of a Bernoulli distribution for each pixel: `bce` times the number of pixels D."""
        return self.bce(x) * len(self.mean)

    def gaussian_negative_log_likelihood(self, x: Any) -> float:
        """Nats per image of N(mean, variance), one variance for all pixels: D/2 log(2 pi variance) + |x - mean|^2 / (2
        variance)."""
        return len(self.mean) * 0.5 * (float(np.log(2 * np.pi * self.variance)) + self.mse(x) / self.variance)

    def _checked(self, x: Any) -> Any:
        if not hasattr(self, "mean"):
            raise ValueError("this MeanImage has seen no images: call fit(x) first")
        x = checked_pixels(x)
        if x.ndim != 2 or x.shape[1] != len(self.mean):
            raise ValueError(f"images of shape {x.shape}: expected (M, {len(self.mean)}), as many pixels as in fit")
        return x

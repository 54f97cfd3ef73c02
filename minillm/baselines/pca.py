"""Principal component analysis: the best linear autoencoder (Pearson 1901; Baldi & Hornik 1989)."""

from __future__ import annotations

from typing import Any

import numpy as np


class PCA:
    """Projection of x (N, D) on the `components` directions of largest variance, K of them.

    With the eigenvectors w_k of the covariance C = (x - mean)^T (x - mean) / (N - 1), by falling eigenvalue:

        z = (x - mean) W          (N, K)      transform
        x' = z W^T + mean         (N, D)      inverse_transform

    No linear autoencoder with K latents has a smaller mean squared error on the data that it was fitted on.
    After `fit`: mean (D,), directions W (D, K), explained_variance (K,) the eigenvalues, and explained_variance_ratio
    (K,) their shares of the total variance. The entry of largest size in each direction is positive: one sign, always.
    noise_variance is the mean of the other eigenvalues: with it PCA is a density, see `negative_log_likelihood`.
    """

    def __init__(self, components: int):
        if components < 1:
            raise ValueError(f"components={components}: expected 1 or more")
        self.components = components

    def fit(self, x: Any) -> PCA:
        x = _matrix(x)
        n, d = x.shape
        if n < 2 or self.components > min(n, d):
            raise ValueError(
                f"x of shape {x.shape} with components={self.components}: expected two rows or more, "
                "and no more components than rows or columns"
            )
        wide = x.astype(np.float64)
        mean = wide.mean(axis=0)
        wide -= mean  # in place: the float64 copy is the largest array here
        variance, directions = np.linalg.eigh(wide.T @ wide / (n - 1))  # ascending
        variance, directions = variance[::-1].clip(min=0), directions[:, ::-1]
        largest = np.abs(directions).argmax(axis=0)
        directions = directions * np.where(directions[largest, np.arange(d)] < 0, -1, 1)
        self.mean = mean.astype(x.dtype)  # (D,)
        self.directions = directions[:, : self.components].astype(x.dtype)  # (D, K)
        self.explained_variance = variance[: self.components]  # (K,)
        total = float(variance.sum())
        self.noise_variance = max(float(variance[self.components :].mean()) if d > self.components else 0.0, 1e-12)
        self.explained_variance_ratio = self.explained_variance / (total or 1.0)  # constant data: nothing to explain
        return self

    def transform(self, x: Any) -> Any:
        """(N, D) -> (N, K)"""
        return (self._checked(x, "mean", "D") - self.mean) @ self.directions

    def inverse_transform(self, z: Any) -> Any:
        """(N, K) -> (N, D)"""
        return self._checked(z, "explained_variance", "K") @ self.directions.T + self.mean

    def reconstruction_error(self, x: Any) -> float:
        """Mean squared error per feature: mean over the N x D entries of (x - inverse_transform(transform(x)))^2."""
        difference = _matrix(x) - self.inverse_transform(self.transform(x))
        return float(np.mean(difference**2, dtype=np.float64))

    def negative_log_likelihood(self, x: Any) -> float:
        """-log p(x) of probabilistic PCA, mean over the N rows, in nats: the linear counterpart of a Gaussian VAE.

        x = W z + mean + noise, z ~ N(0, I): p(x) = N(mean, C), where C has the K largest eigenvalues l_k in the
        principal directions, and in all others their mean s. Source: Tipping & Bishop 1999, Probabilistic PCA.

            -log p(x) = 1/2 [D log 2 pi + sum_k log l_k + (D - K) log s + sum_k z_k^2 / l_k + (|x - mean|^2 - |z|^2) /
            s]
        """
        z = np.asarray(self.transform(x), np.float64)  # (N, K)
        rest = ((_matrix(x) - self.mean).astype(np.float64) ** 2).sum(1) - (z**2).sum(1)  # (N,)
        l, s, d = np.maximum(self.explained_variance, self.noise_variance), self.noise_variance, len(self.mean)
        log_det = np.log(l).sum() + (d - len(l)) * np.log(s)
        return float(0.5 * (d * np.log(2 * np.pi) + log_det + np.mean((z**2 / l).sum(1) + rest / s)))

    def _checked(self, x: Any, like: str, letter: str) -> Any:
        if not hasattr(self, "mean"):
            raise ValueError("this PCA has seen no data: call fit(x) first")
        x, width = _matrix(x), len(getattr(self, like))
        if x.shape[1] != width:
            raise ValueError(f"array of shape {x.shape}: expected (N, {letter}) with {letter} = {width}")
        return x


def _matrix(x: Any) -> Any:
    """x as float32 or float64 (N, D)."""
    x = np.asarray(x)
    if x.ndim != 2:
        raise ValueError(f"array of shape {x.shape}: expected (N, D), one row for each example")
    return x if x.dtype in (np.float32, np.float64) else x.astype(np.float64)

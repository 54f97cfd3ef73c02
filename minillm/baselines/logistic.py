"""Multinomial logistic regression (softmax regression): the best linear classifier by likelihood."""

from __future__ import annotations

from typing import Any

import numpy as np


class LogisticRegression:
    """p(c | x) = softmax(x W + b)_c for x (N, D) and C classes; W (D, C), b (C,). Minimises

        f = - 1/N sum_n log p(y_n | x_n) + l2/2 ||W||^2          (b is not penalised)

    by Newton's method, each step solved by conjugate gradients (Nocedal & Wright, Numerical Optimization, algorithm
    7.1). f is convex, so a zero gradient is the minimum. With theta = [W; b], x with a column of ones, P the softmax
    rows and Y the one-hot labels:

        gradient      G = x^T (P - Y) / N + l2 W
        Hessian       H V = x^T (P * (S - sum_c P_c S_c)) / N + l2 V     with S = x V

    `fit` stops when no entry of the gradient is larger than `tolerance`, or raises after `max_steps` Newton steps.
    """

    def __init__(self, l2: float = 1e-3, tolerance: float = 1e-6, max_steps: int = 100):
        if not (l2 > 0 and tolerance > 0 and max_steps > 0):
            raise ValueError(f"l2={l2}, tolerance={tolerance}, max_steps={max_steps}: expected positive numbers")
        self.l2 = l2  # positive: without it, separable classes drive W to infinity
        self.tolerance = tolerance
        self.max_steps = max_steps

    def fit(self, x: Any, y: Any) -> LogisticRegression:
        """x (N, D), y integers (N,) from 0 to C - 1; C is the largest label + 1."""
        x, y = np.asarray(x, np.float64), np.asarray(y)
        if x.ndim != 2 or len(x) == 0 or y.shape != (len(x),) or y.dtype.kind not in "iu" or y.min() < 0:
            raise ValueError(f"x {x.shape}, y {y.dtype} {y.shape}: expected (N, D) and integers >= 0 of shape (N,)")
        if not np.isfinite(x).all():
            raise ValueError("x holds NaN or infinity: expected finite numbers")
        x = np.c_[x, np.ones(len(x))]  # (N, D + 1)
        onehot = np.eye(int(y.max()) + 1)[y]  # (N, C)
        penalty = np.full((x.shape[1], 1), self.l2)
        penalty[-1] = 0  # the bias
        theta = np.zeros((x.shape[1], onehot.shape[1]))  # (D + 1, C)
        for _ in range(self.max_steps):
            value, p = _objective(x, onehot, penalty, theta)
            gradient = x.T @ (p - onehot) / len(x) + penalty * theta
            if np.abs(gradient).max() <= self.tolerance:
                self.weight, self.bias = theta[:-1], theta[-1]  # (D, C), (C,)
                return self
            step = _newton_step(x, p, penalty, gradient)
            slope, length = float((gradient * step).sum()), 1.0
            while _objective(x, onehot, penalty, theta + length * step)[0] > value + 1e-4 * length * slope:
                length /= 2  # Armijo's rule: no step that does not go down
                if length < 1e-12:
                    raise FloatingPointError(f"no step goes down: tolerance={self.tolerance} is below rounding")
            theta = theta + length * step
        raise FloatingPointError(
            f"gradient {np.abs(gradient).max():.1e} after {self.max_steps} steps, expected {self.tolerance:.1e}: "
            "raise max_steps or l2, or scale the features alike"
        )

    def log_probabilities(self, x: Any) -> Any:
        """log p(c | x), float64 (N, C)."""
        if not hasattr(self, "weight"):
            raise ValueError("this LogisticRegression has seen no data: call fit(x, y) first")
        x = np.asarray(x, np.float64)
        if x.ndim != 2 or x.shape[1] != len(self.weight):
            raise ValueError(f"x of shape {x.shape}: expected (N, {len(self.weight)}), as many features as in fit")
        return _log_softmax(x @ self.weight + self.bias)

    def predict(self, x: Any) -> Any:
        """The most probable class, int64 (N,)."""
        return self.log_probabilities(x).argmax(axis=1)

    def accuracy(self, x: Any, y: Any) -> float:
        """The share of rows whose most probable class is y."""
        return float(np.mean(self.predict(x) == np.asarray(y)))

    def cross_entropy(self, x: Any, y: Any) -> float:
        """Mean of -log p(y | x), nats per example."""
        log_p = self.log_probabilities(x)
        return float(-log_p[np.arange(len(log_p)), np.asarray(y)].mean())


def _log_softmax(logits: Any) -> Any:
    shifted = logits - logits.max(axis=1, keepdims=True)  # exp cannot overflow
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _objective(x: Any, onehot: Any, penalty: Any, theta: Any) -> tuple[float, Any]:
    """f and the softmax rows (N, C)."""
    log_p = _log_softmax(x @ theta)
    return float(-(onehot * log_p).sum() / len(x) + (penalty * theta**2).sum() / 2), np.exp(log_p)


def _newton_step(x: Any, p: Any, penalty: Any, gradient: Any) -> Any:
    """Conjugate gradients for H step = -gradient, to an error that shrinks as the minimum comes near."""
    step, residual = np.zeros_like(gradient), -gradient
    direction, square = residual, float((residual**2).sum())
    goal = min(0.5, square**0.25) ** 2 * square  # |residual| <= min(0.5, sqrt|g|) |g|: faster than linear in the end
    for _ in range(2 * gradient.size):
        s = x @ direction  # (N, C)
        hessian = x.T @ (p * (s - (p * s).sum(axis=1, keepdims=True))) / len(x) + penalty * direction
        length = square / float((direction * hessian).sum())
        step = step + length * direction
        residual = residual - length * hessian
        new = float((residual**2).sum())
        if new <= goal:
            break
        direction, square = residual + new / square * direction, new
    return step

"""Reparameterized sample and KL divergence in Numba on vectors, a row of latents at a time. Formulas in reference.py.

One exponential serves both outputs: std = exp(logvar / 2), and exp(logvar) = std^2. Near 0, where exp(v) - 1 - v would
be what rounding left over, it is v^2 P(v), P a polynomial.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import simd
from ..blocks import BLOCK, SMALL
from ..checks import contiguous
from ..numba_setup import njit, prange

P = (0.49999999792717886, 0.16666667010063635, 0.04166673454079772, 0.008333310275248383, 0.001388545198180056,
     0.0001984402361993695, 2.5354829468670136e-05, 2.772283393087966e-06)  # minimax on -1 .. 1  # fmt: skip


def reparameterize_forward(mean: Any, logvar: Any, noise: Any) -> tuple[Any, Any]:
    z, kl = np.empty(mean.shape, mean.dtype), np.empty(mean.shape[0], mean.dtype)
    _forward(contiguous(mean), contiguous(logvar), contiguous(noise), z, kl)
    return z, kl


@njit(parallel=True)
def _forward(mean, logvar, noise, z, kl):
    B, L = mean.shape
    rows = max(1, BLOCK // max(1, L))
    if mean.size <= SMALL:
        _forward_rows(mean, logvar, noise, z, kl, 0, B)
    else:
        for b in prange((B + rows - 1) // rows):
            _forward_rows(mean, logvar, noise, z, kl, b * rows, min((b + 1) * rows, B))


@njit
def _forward_rows(mean, logvar, noise, z, kl, start, stop):
    n, L = simd.lanes(mean), mean.shape[1]
    for row in range(start, stop):
        total = 0.0
        for j in range(0, L, n):
            i, left = row * L + j, L - j
            m, v = simd.load_tail(mean, i, left), simd.load_tail(logvar, i, left)
            std, _, excess = _exponentials(v)
            simd.store_tail(z, i, simd.fma(std, simd.load_tail(noise, i, left), m), left)
            total += simd.hsum_wide(simd.fma(m, m, excess))  # 0 in the lanes beyond the row
        kl[row] = 0.5 * total


def reparameterize_backward(dz: Any | None, dkl: Any | None, mean: Any, logvar: Any, noise: Any) -> tuple[Any, Any]:
    dmean, dlogvar = np.empty(mean.shape, mean.dtype), np.empty(mean.shape, mean.dtype)
    dz = np.zeros(mean.shape, mean.dtype) if dz is None else contiguous(dz)
    dkl = np.zeros(mean.shape[0], mean.dtype) if dkl is None else contiguous(dkl)
    _backward(dz, dkl, contiguous(mean), contiguous(logvar), contiguous(noise), dmean, dlogvar)
    return dmean, dlogvar


@njit(parallel=True)
def _backward(dz, dkl, mean, logvar, noise, dmean, dlogvar):
    B, L = mean.shape
    rows = max(1, BLOCK // max(1, L))
    if mean.size <= SMALL:
        _backward_rows(dz, dkl, mean, logvar, noise, dmean, dlogvar, 0, B)
    else:
        for b in prange((B + rows - 1) // rows):
            _backward_rows(dz, dkl, mean, logvar, noise, dmean, dlogvar, b * rows, min((b + 1) * rows, B))


@njit
def _backward_rows(dz, dkl, mean, logvar, noise, dmean, dlogvar, start, stop):
    n, L = simd.lanes(mean), mean.shape[1]
    for row in range(start, stop):
        k = dkl[row]
        for j in range(0, L, n):
            i, left = row * L + j, L - j
            d, e = simd.load_tail(dz, i, left), simd.load_tail(noise, i, left)
            std, grown, _ = _exponentials(simd.load_tail(logvar, i, left))
            simd.store_tail(dmean, i, simd.fma(simd.load_tail(mean, i, left), k, d), left)
            sample = simd.select(d == 0.0, d, d * 0.5 * e * std)  # 0 * exp(800) is NaN
            divergence = grown * (0.5 * k) if k != 0.0 else d * 0.0
            simd.store_tail(dlogvar, i, sample + divergence, left)


@njit(error_model="numpy", forceinline=True)
def _exponentials(v):
    """exp(v / 2), exp(v) - 1, exp(v) - 1 - v"""
    std = simd.exp(v * 0.5)
    if simd.lanes(v) == simd.LANES64:  # decided when compiled
        grown = simd.expm1(v)
        return std, grown, grown - v
    p = simd.fma(simd.fma(simd.fma(simd.fma(v, P[7], P[6]), v, P[5]), v, P[4]), v, P[3])
    near = v * v * simd.fma(simd.fma(simd.fma(p, v, P[2]), v, P[1]), v, P[0])
    small = simd.absolute(v) < 1.0
    grown = simd.fma(std, std, -1.0)
    return std, simd.select(small, v + near, grown), simd.select(small, near, grown - v)

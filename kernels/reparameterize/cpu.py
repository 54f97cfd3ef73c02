"""Reparameterized sample and KL divergence in Numba: examples in parallel, float64 inside. Formulas in reference.py."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..checks import contiguous
from ..numba_setup import njit, prange


def reparameterize_forward(mean: Any, logvar: Any, noise: Any) -> tuple[Any, Any]:
    z, kl = np.empty(mean.shape, mean.dtype), np.empty(mean.shape[0], mean.dtype)
    _forward(contiguous(mean), contiguous(logvar), contiguous(noise), z, kl)
    return z, kl


@njit(parallel=True, cache=True, error_model="numpy")
def _forward(mean, logvar, noise, z, kl):
    for i in prange(mean.shape[0]):
        mi, vi, ni, zi = mean[i], logvar[i], noise[i], z[i]  # (L,)
        total = 0.0
        for j in range(mi.size):
            m, lv = np.float64(mi[j]), np.float64(vi[j])
            zi[j] = m + math.exp(0.5 * lv) * ni[j]
            total += math.expm1(lv) - lv + m * m
        kl[i] = 0.5 * total


def reparameterize_backward(dz: Any | None, dkl: Any | None, mean: Any, logvar: Any, noise: Any) -> tuple[Any, Any]:
    dmean, dlogvar = np.empty(mean.shape, mean.dtype), np.empty(mean.shape, mean.dtype)
    dz = np.zeros(mean.shape, mean.dtype) if dz is None else contiguous(dz)
    dkl = np.zeros(mean.shape[0], mean.dtype) if dkl is None else contiguous(dkl)
    _backward(dz, dkl, contiguous(mean), contiguous(logvar), contiguous(noise), dmean, dlogvar)
    return dmean, dlogvar


@njit(parallel=True, cache=True, error_model="numpy")
def _backward(dz, dkl, mean, logvar, noise, dmean, dlogvar):
    for i in prange(mean.shape[0]):
        di, mi, vi, ni, dmi, dvi = dz[i], mean[i], logvar[i], noise[i], dmean[i], dlogvar[i]  # (L,)
        k = np.float64(dkl[i])
        for j in range(mi.size):
            d, lv = np.float64(di[j]), np.float64(vi[j])
            dmi[j] = d + k * mi[j]
            dlv = 0.0
            if d != 0.0:  # 0 * exp(800) is NaN
                dlv += 0.5 * d * ni[j] * math.exp(0.5 * lv)
            if k != 0.0:
                dlv += 0.5 * k * math.expm1(lv)
            dvi[j] = dlv

"""Products of a linear layer y = x W^T with x (M, K) and W (N, K), as a training step makes them, float32 and bfloat16.

    forward  y  = x W^T          dx  = dout W          dw  = dout^T x
"""

from __future__ import annotations

from collections.abc import Iterator

import kernels
from kernels import simd

from ..case import Case, Options, plain
from ..rivals import jax_family, numpy, torch_family

TITLE = "matrix products: forward and both gradients of a linear layer M x K -> N"
SHAPE = ("M", "N", "K")
GPT = [(4096, 1152, 384), (4096, 384, 384), (4096, 1536, 384), (4096, 384, 1536)]
SMALL = [(768, 384, 128), (768, 128, 128), (768, 512, 128), (768, 128, 512)]
SQUARE = (1024, 1024, 1024)


def cases(options: Options) -> Iterator[Case]:
    for M, N, K in options.pick([*GPT, *SMALL, SQUARE], [GPT[2], SMALL[2], SQUARE]):
        x, weight, dout = options.normal(M, K), options.normal(N, K), options.normal(M, N)
        products = {"forward": (x, weight.T), "dx": (dout, weight), "dw": (dout.T, x)}
        for which, (a, b) in products.items():
            if (M, N, K) == SQUARE and which != "forward":
                continue
            yield _case(f"{which} {M}x{N}x{K}", a, b, 2 * M * N * K, 4 * (M * K + N * K + M * N))


def _case(name, a, b, flops: int, bytes_: int) -> Case:
    case = Case("matmul", name, (a, b), "matmul", flops=flops, bytes=bytes_)
    if simd.HAS_BF16:
        case.ours["minillm.bf16"] = plain(kernels.matmul_bf16)
    case.rivals = (
        numpy(lambda a, b: a @ b)
        | torch_family(lambda torch, a, b: a @ b, bf16=True)
        | jax_family(lambda jax, a, b: a @ b)
    )
    return case

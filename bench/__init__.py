'''python -m bench: is it right, how fast is it, and how far from the machine's limit?

Reading the output
------------------

The first lines say what the machine can do, measured a moment ago with the SIMD values of kernels/simd.py: FMA peak,
and copying bandwidth in memory and in L1. Then a table per suite, an implementation a line:

    median, quartiles   seconds a call; blocks of calls of all implementations alternate (bench/timing.py)
    rate                FLOP/s of the formula where computing is the limit, else bytes/s that must move
    of limit            shortest possible time / median; shortest = max(flops / peak, bytes / bandwidth of the cache
                        that holds the case). Over 100 %: the formula's work was not all done, or the limit was
                        measured while others used the machine
    ours is             how many times as fast as this implementation minillm's float32 is
    max error           against the reference in float64; in units in the last place for single functions
    load                how much of the cores others used meanwhile: above 10 %, repeat the run
    equal               the error is within the bound of bench/equal.py, before and after timing. inexact: a rival's
                        is not. WRONG: ours or a candidate's is not, and it was not timed; the exit status is 1

torch and JAX run in processes of their own, with OpenMP's defaults (bench/remote.py).

At the end: the project's targets with the worst figure of this run, met or not. With --quick a figure comes from few
cases. `--json FILE` writes everything as {"machine": {...}, "rows": [...]}, `--compare FILE` holds the next run against
it, `--plot DIR` draws.

Your own kernel
---------------

Write a function with the signature of one in the package `kernels`, under its name or another, in a file, here
my_softmax.py:

    import numpy as np
    from kernels import simd
    from kernels.numba_setup import njit, prange

    @njit(parallel=True)
    def rows(x, out):
        n, width = simd.lanes(x), x.shape[1]
        for r in prange(x.shape[0]):
            total = simd.zeros(x)
            for i in range(0, width, n):
                e = simd.exp(simd.load_tail(x[r], i, width - i))
                total = total + simd.select(simd.first(width - i, x), e, simd.zeros(x))
                simd.store_tail(out[r], i, e, width - i)
            scale = 1 / simd.hsum(total)
            for i in range(0, width, n):
                simd.store_tail(out[r], i, simd.load_tail(out[r], i, width - i) * scale, width - i)

    def softmax_forward(x):
        out = np.empty_like(x)
        rows(x, out)
        return out

and run it beside ours and everyone else's:

    python -m bench softmax --candidate my_softmax:softmax_forward
    python -m bench softmax --candidate my_softmax:other_name=softmax_forward --shapes 4096x1000

It joins the cases of that kernel, is checked like ours before it is timed, and refused with the worst element if it is
wrong. (This one overflows for large inputs. `minillm.testing.check_kernel` looks for such things: odd shapes, layouts,
repeatability. A benchmark's inputs are ordinary.)
'''

// Rotary position embedding:  out1 = x1 cos - x2 sin     out2 = x2 cos + x1 sin     backward: sin negated
//
// x (B, H, T, D), x1 and x2 the halves of its last axis, which is contiguous; the other axes have any strides, so
// heads are turned where they lie in (B, T, H, D). cos, sin (T, D / 2), out (B, H, T, D) contiguous. A thread takes 16
// bytes of each half of a row. 2 numbers moved for each element, 62 us for 67M in bf16 at 4.3 TB/s; the angles, read
// again for each head, come out of the second-level cache.
#include "elements.cuh"
#ifndef TYPE
#define TYPE float
#endif

struct Sizes { u32 B, H, T, half; };
struct Strides { long long b, h, t; };                           // of x, in elements

extern "C" __global__ void rotary(const TYPE* x, const TYPE* cos, const TYPE* sin, TYPE* out, Sizes size,
                                  Strides stride, int whole, float sign) {
    constexpr u32 N = Pack<TYPE>::N;
    u32 packs = (size.half + N - 1) / N;                         // in half a row
    u32 count = size.B * size.H * size.T * packs;                // checked by cuda.py to fit
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += (u64)gridDim.x * blockDim.x) {
        u32 row = (u32)i / packs, j = ((u32)i - row * packs) * N;
        u32 bh = row / size.T, t = row - bh * size.T, b = bh / size.H, h = bh - b * size.H;
        const TYPE* from = x + b * stride.b + h * stride.h + t * stride.t;
        TYPE* to = out + (u64)row * 2 * size.half;
        auto c = load(cos + (u64)t * size.half, j, size.half, whole);
        auto s = load(sin + (u64)t * size.half, j, size.half, whole);
        auto x1 = load(from, j, size.half, whole), x2 = load(from + size.half, j, size.half, whole);
#pragma unroll
        for (int k = 0; k < (int)N; k++) {
            float first = x1.x[k], second = x2.x[k], turn = s.x[k] * sign;
            x1.x[k] = fmaf(first, c.x[k], -second * turn);
            x2.x[k] = fmaf(second, c.x[k], first * turn);
        }
        store(to, j, size.half, whole, x1);
        store(to + size.half, j, size.half, whole, x2);
    }
}

// The sample of a variational autoencoder and its KL divergence:
//
//     z  = mean + exp(logvar / 2) noise
//     kl = sum over latents of (exp(logvar) - 1 - logvar + mean^2) / 2
//
//     dmean   = dz + dkl mean
//     dlogvar = dz noise exp(logvar / 2) / 2 + dkl (exp(logvar) - 1) / 2
//
// mean, logvar, noise, z (B, L), kl (B,). One warp a row, because rows are short (2 to 1000 latents): its lanes take
// packs of 16 bytes in turn, and meet in a sum by shuffles; nothing is shared, so there is no barrier. One exponential
// serves both outputs: 4 or 6 numbers moved for each element.
#include "elements.cuh"
#ifndef TYPE
#define TYPE float
#endif

struct Exponentials { float std, grown, excess; };               // exp(v / 2), exp(v) - 1, exp(v) - 1 - v

// Near 0, where exp(v) - 1 - v would be what rounding left over, it is v^2 P(v), P from kernels/reparameterize/cpu.py.
__device__ __forceinline__ Exponentials exponentials(float v) {
    float std = expf(0.5f * v), grown = fmaf(std, std, -1.0f), excess = grown - v;
    if (fabsf(v) < 1.0f) {
        float p = fmaf(2.77228339e-6f, v, 2.53548297e-5f);
        p = fmaf(p, v, 1.98440236e-4f);
        p = fmaf(p, v, 1.38854520e-3f);
        p = fmaf(p, v, 8.33331028e-3f);
        p = fmaf(p, v, 4.16667345e-2f);
        p = fmaf(p, v, 0.166666670f);
        p = fmaf(p, v, 0.499999998f);
        excess = v * v * p;
        grown = v + excess;
    }
    return {std, grown, excess};
}

extern "C" __global__ void reparameterize_forward(const TYPE* mean, const TYPE* logvar, const TYPE* noise, TYPE* z,
                                                  TYPE* kl, u64 B, u64 L, int whole) {
    constexpr int N = Pack<TYPE>::N;
    int lane = threadIdx.x % 32;
    u64 warp = ((u64)blockIdx.x * blockDim.x + threadIdx.x) / 32, warps = (u64)gridDim.x * blockDim.x / 32;
    for (u64 row = warp; row < B; row += warps) {
        u64 at = row * L;
        float sum = 0;
        for (u64 j = lane * N; j < L; j += 32 * N) {
            auto m = load(mean + at, j, L, whole), v = load(logvar + at, j, L, whole);
            auto e = load(noise + at, j, L, whole);
#pragma unroll
            for (int k = 0; k < N; k++) {
                Exponentials x = exponentials(v.x[k]);
                sum += fmaf(m.x[k], m.x[k], x.excess);           // 0 beyond the row
                e.x[k] = fmaf(x.std, e.x[k], m.x[k]);
            }
            store(z + at, j, L, whole, e);
        }
        sum = warp_sum(sum);
        if (lane == 0) kl[row] = from_float<TYPE>(0.5f * sum);
    }
}

// dz or dkl may be null: that output was not used.
extern "C" __global__ void reparameterize_backward(const TYPE* dz, const TYPE* dkl, const TYPE* mean,
                                                   const TYPE* logvar, const TYPE* noise, TYPE* dmean,
                                                   TYPE* dlogvar, u64 B, u64 L, int whole) {
    constexpr int N = Pack<TYPE>::N;
    u64 warp = ((u64)blockIdx.x * blockDim.x + threadIdx.x) / 32, warps = (u64)gridDim.x * blockDim.x / 32;
    for (u64 row = warp; row < B; row += warps) {
        u64 at = row * L;
        float divergence = dkl ? to_float(dkl[row]) : 0.0f;
        for (u64 j = threadIdx.x % 32 * N; j < L; j += 32 * N) {
            auto m = load(mean + at, j, L, whole), v = load(logvar + at, j, L, whole);
            Floats<TYPE> d = {}, e = {};
            if (dz) d = load(dz + at, j, L, whole), e = load(noise + at, j, L, whole);
#pragma unroll
            for (int k = 0; k < N; k++) {
                Exponentials x = exponentials(v.x[k]);
                m.x[k] = fmaf(divergence, m.x[k], d.x[k]);
                float sampled = d.x[k] == 0.0f ? d.x[k] : 0.5f * d.x[k] * e.x[k] * x.std;      // 0 inf is NaN
                v.x[k] = divergence == 0.0f ? sampled : fmaf(0.5f * divergence, x.grown, sampled);
            }
            store(dmean + at, j, L, whole, m);
            store(dlogvar + at, j, L, whole, v);
        }
    }
}

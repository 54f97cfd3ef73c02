// AdamW and Adam, all parameters of a model in one launch.
//
//     g = grad scale  (Adam: + decay param)      m = beta1 m + (1 - beta1) g      v = beta2 v + (1 - beta2) g^2
//     param = param (1 - lr decay)  (Adam: param)  -  rate m / (sqrt(v) inverse_root + eps)
//
// param, grad, exp_avg m, exp_avg_sq v: flat buffers of n elements. Elements bounds[s] .. bounds[s + 1] - 1 decay by
// decays[s]; segments = 0: all by f.decay. A block takes CHUNK elements at a time: it looks up the segment of the first
// one by bisection, and its threads walk on from there, 16 bytes of each buffer at a time. 28 bytes moved for a float
// parameter: 124M in 0.81 ms at 4.3 TB/s; everything else hides behind that.
#include "elements.cuh"
#ifndef TYPE
#define TYPE float
#endif

struct Factors { float scale, beta1, rest1, beta2, rest2, rate, inverse_root, eps, lr, decay; };

constexpr int THREADS = 256, PACKS = 4;                          // packs that a thread takes of a chunk

__device__ __forceinline__ void update(float& p, float g, float& m, float& v, float decay, int decoupled, Factors f) {
    float keep = decoupled ? fmaf(-f.lr, decay, 1.0f) : 1.0f;    // one rounding: as good as the host's
    g = fmaf(p, decoupled ? 0.0f : decay, g * f.scale);
    m = fmaf(m, f.beta1, g * f.rest1);
    v = fmaf(v, f.beta2, g * g * f.rest2);
    p = fmaf(p, keep, -(m * f.rate / fmaf(sqrtf(v), f.inverse_root, f.eps)));
}

extern "C" __global__ void __launch_bounds__(THREADS)
adamw(TYPE* param, const TYPE* grad, TYPE* exp_avg, TYPE* exp_avg_sq, u64 n, int whole, const u64* bounds,
      const float* decays, int segments, Factors f, int decoupled) {
    constexpr int N = Pack<TYPE>::N, CHUNK = THREADS * PACKS * N;
    for (u64 start = (u64)blockIdx.x * CHUNK; start < n; start += (u64)gridDim.x * CHUNK) {
        int s = 0;                                               // the segment: bounds[s] <= start < bounds[s + 1]
        for (int end = segments; end - s > 1;) {
            int middle = (s + end) / 2;
            if (bounds[middle] <= start) s = middle;
            else end = middle;
        }
        float decay = segments ? decays[s] : f.decay;
        u64 next = segments ? bounds[s + 1] : n;
        for (int k = 0; k < PACKS; k++) {
            u64 i = start + (u64)(k * THREADS + threadIdx.x) * N;
            if (i >= n) break;
            auto p = load(param, i, n, whole), g = load(grad, i, n, whole);
            auto m = load(exp_avg, i, n, whole), v = load(exp_avg_sq, i, n, whole);
#pragma unroll
            for (int j = 0; j < N; j++) {
                while (i + j >= next && next < n) decay = decays[++s], next = bounds[s + 1];
                update(p.x[j], g.x[j], m.x[j], v.x[j], decay, decoupled, f);
            }
            store(param, i, n, whole, p);
            store(exp_avg, i, n, whole, m);
            store(exp_avg_sq, i, n, whole, v);
        }
    }
}

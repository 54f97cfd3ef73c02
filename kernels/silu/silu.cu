// SiLU and SwiGLU:  silu(x) = x sigmoid(x)     swiglu(gate, up) = silu(gate) up
//
//     dx    = dout silu'(x)                    formulas in activations.cuh
//     dgate = dout up silu'(gate)              dup = dout silu(gate)
//
// All arrays: n elements. A thread takes 16 bytes of each at a time (elements.cuh), and the backward pass of swiglu
// makes both gradients from one reading: 5 numbers moved for each element, 10 bytes in bf16, 156 us for 67M at 4.3
// TB/s.
#include "activations.cuh"
#include "elements.cuh"
#ifndef TYPE
#define TYPE float
#endif

extern "C" __global__ void silu_forward(const TYPE* x, TYPE* out, u64 n, int whole) {
    for (u64 i = first_pack<TYPE>(); i < n; i += all_packs<TYPE>()) {
        auto v = load(x, i, n, whole);
#pragma unroll
        for (int j = 0; j < v.N; j++) v.x[j] = silu(v.x[j]);
        store(out, i, n, whole, v);
    }
}

extern "C" __global__ void silu_backward(const TYPE* dout, const TYPE* x, TYPE* dx, u64 n, int whole) {
    for (u64 i = first_pack<TYPE>(); i < n; i += all_packs<TYPE>()) {
        auto d = load(dout, i, n, whole), v = load(x, i, n, whole);
#pragma unroll
        for (int j = 0; j < v.N; j++) d.x[j] *= silu_slope(v.x[j]);
        store(dx, i, n, whole, d);
    }
}

extern "C" __global__ void swiglu_forward(const TYPE* gate, const TYPE* up, TYPE* out, u64 n, int whole) {
    for (u64 i = first_pack<TYPE>(); i < n; i += all_packs<TYPE>()) {
        auto g = load(gate, i, n, whole), u = load(up, i, n, whole);
#pragma unroll
        for (int j = 0; j < g.N; j++) u.x[j] *= silu(g.x[j]);
        store(out, i, n, whole, u);
    }
}

extern "C" __global__ void swiglu_backward(const TYPE* dout, const TYPE* gate, const TYPE* up, TYPE* dgate, TYPE* dup,
                                           u64 n, int whole) {
    for (u64 i = first_pack<TYPE>(); i < n; i += all_packs<TYPE>()) {
        auto d = load(dout, i, n, whole), g = load(gate, i, n, whole), u = load(up, i, n, whole);
#pragma unroll
        for (int j = 0; j < d.N; j++) {
            u.x[j] *= d.x[j] * silu_slope(g.x[j]);
            d.x[j] *= silu(g.x[j]);
        }
        store(dgate, i, n, whole, u);
        store(dup, i, n, whole, d);
    }
}

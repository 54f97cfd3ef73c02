// GELU:  out = x Phi(x)     dx = dout (Phi(x) + x Phi'(x)),  Phi exact or by tanh; formulas in activations.cuh.
//
// x, out, dout, dx: n elements. A thread takes 16 bytes of each array at a time (elements.cuh). The memory sets the
// pace: forward 2 and backward 3 numbers moved for each element, 4 and 6 bytes in bf16; at 4.3 TB/s 67M elements take
// 62 and 94 us. At 16 bytes read and written a multiprocessor has 430 instructions a pack to spend; this takes about
// 170.
#include "activations.cuh"
#include "elements.cuh"
#ifndef TYPE
#define TYPE float
#endif

extern "C" __global__ void gelu_forward(const TYPE* x, TYPE* out, u64 n, int whole, int by_tanh) {
    for (u64 i = first_pack<TYPE>(); i < n; i += all_packs<TYPE>()) {
        auto v = load(x, i, n, whole);
#pragma unroll
        for (int j = 0; j < v.N; j++) v.x[j] = by_tanh ? gelu_tanh(v.x[j]) : gelu(v.x[j]);
        store(out, i, n, whole, v);
    }
}

extern "C" __global__ void gelu_backward(const TYPE* dout, const TYPE* x, TYPE* dx, u64 n, int whole, int by_tanh) {
    for (u64 i = first_pack<TYPE>(); i < n; i += all_packs<TYPE>()) {
        auto d = load(dout, i, n, whole), v = load(x, i, n, whole);
#pragma unroll
        for (int j = 0; j < v.N; j++) d.x[j] *= by_tanh ? gelu_tanh_slope(v.x[j]) : gelu_slope(v.x[j]);
        store(dx, i, n, whole, d);
    }
}

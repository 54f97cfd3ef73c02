// Binary cross-entropy of logits:  loss = max(x, 0) - x y + log(1 + exp(-|x|))     dx = dloss (sigmoid(x) - y)
//
// x logits, y targets, dx: n elements, 16 bytes at a time (elements.cuh). The loss of each element, or the sums of
// rows of N, one block a row: its threads take packs in turn, and meet in a sum in a fixed order. 3 numbers moved for
// each element, 2 if the losses are summed.
#include "activations.cuh"
#include "elements.cuh"
#ifndef TYPE
#define TYPE float
#endif

__device__ __forceinline__ float loss_of(float x, float y) {
    return fmaf(-x, y, relu(x)) + log1pf(expf(-fabsf(x)));
}

extern "C" __global__ void bce_elements(const TYPE* x, const TYPE* y, TYPE* loss, u64 n, int whole) {
    for (u64 i = first_pack<TYPE>(); i < n; i += all_packs<TYPE>()) {
        auto v = load(x, i, n, whole), t = load(y, i, n, whole);
#pragma unroll
        for (int j = 0; j < v.N; j++) v.x[j] = loss_of(v.x[j], t.x[j]);
        store(loss, i, n, whole, v);
    }
}

extern "C" __global__ void bce_rows(const TYPE* x, const TYPE* y, TYPE* loss, u64 rows, u64 N, int whole) {
    __shared__ float scratch[33];
    for (u64 row = blockIdx.x; row < rows; row += gridDim.x) {
        float sum = 0;
        for (u64 j = (u64)threadIdx.x * Pack<TYPE>::N; j < N; j += blockDim.x * Pack<TYPE>::N) {
            auto v = load(x + row * N, j, N, whole), t = load(y + row * N, j, N, whole);
#pragma unroll
            for (int k = 0; k < v.N; k++) sum += j + k < N ? loss_of(v.x[k], t.x[k]) : 0.0f;
        }
        sum = block_sum(sum, scratch);
        if (threadIdx.x == 0) loss[row] = from_float<TYPE>(sum);
    }
}

// dloss: one number for every N elements, N = 1 or the length of a row.
extern "C" __global__ void bce_backward(const TYPE* x, const TYPE* y, const TYPE* dloss, TYPE* dx, u64 n, int whole,
                                        u64 N) {
    for (u64 i = first_pack<TYPE>(); i < n; i += all_packs<TYPE>()) {
        auto v = load(x, i, n, whole), t = load(y, i, n, whole);
        Floats<TYPE> d;
        if (N == 1) d = load(dloss, i, n, whole);
        else {
            u64 row = i / N, next = (row + 1) * N;               // a pack may reach into the next rows
#pragma unroll
            for (int j = 0; j < v.N; j++) {
                if (i + j == next) row++, next += N;
                d.x[j] = i + j < n ? to_float(dloss[row]) : 0.0f;
            }
        }
#pragma unroll
        for (int j = 0; j < v.N; j++) v.x[j] = d.x[j] * (sigmoid(v.x[j]) - t.x[j]);
        store(dx, i, n, whole, v);
    }
}

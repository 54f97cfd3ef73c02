// What belongs to a linear layer beside its product, which cuBLAS makes:
//
//     forward     pre = product + bias, in place of the product;  out = f(pre)
//     backward    dpre = dout f'(pre)  and its sum over the rows, dbias
//
// Arrays of (rows, columns), bias and dbias (columns,). f: kernels/linear's activations, formulas in activations.cuh.
//
// Forward: a thread takes 16 bytes of a row at a time; 2 or 3 numbers moved for each element, 62 or 94 us for 67M in
// bf16 at 4.3 TB/s. f is chosen by a switch that goes the same way everywhere: no variant to compile for each.
//
// Backward: dpre and dbias in one pass over dout and pre. A block takes 32 packs of columns (one for each lane) of
// ROWS rows, each of its 8 warps every eighth row; the sums of the warps meet in shared memory, those of the blocks in
// an array (row blocks, columns) of floats, which a second kernel adds in double. Always in the same order: no
// atomics.
#include "activations.cuh"
#include "elements.cuh"
#ifndef TYPE
#define TYPE float
#endif

enum { NONE, RELU, GELU, GELU_TANH, SILU, RELU2 };               // the codes of ../matmul/activation.py

__device__ __forceinline__ float activate(float z, int code) {
    switch (code) {
        case RELU: return relu(z);
        case RELU2: return relu(z) * relu(z);
        case GELU: return gelu(z);
        case GELU_TANH: return gelu_tanh(z);
        case SILU: return silu(z);
        default: return z;
    }
}
__device__ __forceinline__ float slope(float z, int code) {      // f'(z); of relu, z may be its result
    switch (code) {
        case RELU: return z <= 0.0f ? 0.0f : 1.0f;
        case RELU2: return 2.0f * relu(z);
        case GELU: return gelu_slope(z);
        case GELU_TANH: return gelu_tanh_slope(z);
        case SILU: return silu_slope(z);
        default: return 1.0f;
    }
}

// out may be product itself, and keep says whether product is to hold pre afterwards. bias may be null.
extern "C" __global__ void linear_epilogue(TYPE* product, const TYPE* bias, TYPE* out, u64 rows, int columns, int whole,
                                           int code, int keep) {
    constexpr int N = Pack<TYPE>::N;
    int packs = (columns + N - 1) / N;                           // in a row
    u64 threads = (u64)gridDim.x * blockDim.x;
    for (u64 p = (u64)blockIdx.x * blockDim.x + threadIdx.x; p < rows * packs; p += threads) {
        u64 row = p / packs;
        u64 j = (p - row * packs) * N, at = row * columns;
        auto v = load(product + at, j, columns, whole);
        if (bias) {
            auto b = load(bias, j, columns, whole);
#pragma unroll
            for (int k = 0; k < N; k++) v.x[k] += b.x[k];
        }
        if (keep) store(product + at, j, columns, whole, v);
#pragma unroll
        for (int k = 0; k < N; k++) v.x[k] = activate(v.x[k], code);
        store(out + at, j, columns, whole, v);
    }
}

constexpr int WARPS = 8, ROWS = 128;                             // of a block

// dpre may be null (no activation: it is dout), sums too (no bias gradient wanted). Blocks: column blocks x row blocks.
extern "C" __global__ void __launch_bounds__(32 * WARPS)
linear_slopes(const TYPE* dout, const TYPE* z, TYPE* dpre, float* sums, u64 rows, int columns, int whole, int code) {
    constexpr int N = Pack<TYPE>::N;
    __shared__ float partial[WARPS][32 * N];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int across = (columns + 32 * N - 1) / (32 * N);              // blocks beside each other
    u64 down = blockIdx.x / across;
    int left = (blockIdx.x % across) * 32 * N, j = left + lane * N;
    Floats<TYPE> total = {};
    u64 last = min(rows, (down + 1) * (u64)ROWS);
    for (u64 row = down * ROWS + warp; row < last; row += WARPS) {
        u64 at = row * columns;
        auto d = load(dout + at, j, columns, whole);
        if (dpre) {
            auto v = load(z + at, j, columns, whole);
#pragma unroll
            for (int k = 0; k < N; k++) d.x[k] *= slope(v.x[k], code);
            store(dpre + at, j, columns, whole, d);
        }
#pragma unroll
        for (int k = 0; k < N; k++) total.x[k] += d.x[k];
    }
    if (!sums) return;
#pragma unroll
    for (int k = 0; k < N; k++) partial[warp][k * 32 + lane] = total.x[k];   // neighbours in neighbouring banks
    __syncthreads();
    for (int i = threadIdx.x; i < 32 * N; i += 32 * WARPS) {
        float sum = 0;
#pragma unroll
        for (int w = 0; w < WARPS; w++) sum += partial[w][i];
        int column = left + i % 32 * N + i / 32;
        if (column < columns) sums[down * columns + column] = sum;
    }
}

// dbias += the column sums of sums (row_blocks, columns). A block has 32 columns, each of its warps every eighth row.
extern "C" __global__ void __launch_bounds__(32 * WARPS)
linear_bias(const float* sums, TYPE* dbias, u64 row_blocks, int columns) {
    __shared__ double partial[WARPS][32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, j = blockIdx.x * 32 + lane;
    double sum = 0;
    if (j < columns)
        for (u64 b = warp; b < row_blocks; b += WARPS) sum += sums[b * columns + j];
    partial[warp][lane] = sum;
    __syncthreads();
    if (warp > 0 || j >= columns) return;
    for (int w = 1; w < WARPS; w++) sum += partial[w][lane];
    dbias[j] = from_float<TYPE>((float)(sum + to_float(dbias[j])));
}

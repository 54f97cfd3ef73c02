// Sums over the rows of a matrix (rows, n), column by column, in the same order on every run: gradients of weights.
//
// Each block takes a range of rows, cut by the shape alone. Its threads own columns (pack column(start, k), whatever
// the row) and add up in registers; then they write their sums as one row of part (blocks, n). A second kernel,
// `add_parts`, adds the blocks' rows in order. No atomics: floating-point sums depend on the order of their terms.
//
//     Columns<2> sums;                                   // of two things at once, dweight and dbias
//     for each row r of this team, for each chunk:
//         sums.begin(start, first row?, part, n)         // a row of several chunks: its columns change, and the sums
//         sums.x[0][k][e] += ...                         // wait in part
//         sums.end(start, part, n)
//     sums.finish(part, n, shared);                      // every thread of the block
#pragma once
#include "rows.cuh"

// part (M, blocks, n) float: where sum m of this block's columns goes.
DEVICE float* part_of(float* part, int m, int n) { return part + ((long long)m * gridDim.x + blockIdx.x) * n; }

template <int M> struct Columns {
    float x[M][PACKS][N];

    DEVICE Columns() {
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int k = 0; k < PACKS; k++)
#pragma unroll
                for (int e = 0; e < N; e++) x[m][k][e] = 0.0f;
    }
    DEVICE void begin(int start, bool first, float* part, int n) {
        if (n <= CHUNK) return;
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int k = 0; k < PACKS; k++)
#pragma unroll
                for (int e = 0; e < N; e++) {
                    int i = column(start, k) + e;
                    x[m][k][e] = !first && i < n ? part_of(part, m, n)[i] : 0.0f;
                }
    }
    DEVICE void end(int start, float* part, int n) {
        if (n > CHUNK) store(start, part, n);
    }
    DEVICE void store(int start, float* part, int n) {
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int k = 0; k < PACKS; k++)
#pragma unroll
                for (int e = 0; e < N; e++) {
                    int i = column(start, k) + e;
                    if (i < n) part_of(part, m, n)[i] = x[m][k][e];
                }
    }
    // After the last row. Where a block has several teams, they add up one after another: shared (M * CHUNK).
    DEVICE void finish(float* part, int n, float* shared) {
        if (n > CHUNK) return;                // all in part already
        if constexpr (TEAMS > 1) {
            for (int team = 0; team < TEAMS; team++) {
                if (threadIdx.x / TEAM == team) {
#pragma unroll
                    for (int m = 0; m < M; m++)
#pragma unroll
                        for (int k = 0; k < PACKS; k++)
#pragma unroll
                            for (int e = 0; e < N; e++) {
                                float& sum = shared[m * CHUNK + column(0, k) + e];
                                x[m][k][e] = sum = team == 0 ? x[m][k][e] : sum + x[m][k][e];
                            }
                }
                __syncthreads();
            }
            if (threadIdx.x / TEAM == TEAMS - 1) store(0, part, n);
        } else {
            store(0, part, n);
        }
    }
};

// out[c] = sum of part[:, c], plus what stands in out if `add`; part (parts, n). Block: 32 x 32 threads, for 32
// columns; thread (c, y) adds rows y, y + 32, ... and the 32 sums of a column are added in order.
extern "C" __global__ void __launch_bounds__(1024)
add_parts(const float* part, TYPE* out, int parts, int n, int add) {
    __shared__ double sums[32][33];           // few numbers, so double costs nothing, and the sum loses no digits
    int lane = threadIdx.x % 32, y = threadIdx.x / 32, c = blockIdx.x * 32 + lane;
    double sum = 0.0;
    if (c < n)
        for (int p = y; p < parts; p += 32) sum += part[(long long)p * n + c];
    sums[y][lane] = sum;
    __syncthreads();
    if (y > 0 || c >= n) return;
    sum = add ? to_float(out[c]) : 0.0f;
    for (int i = 0; i < 32; i++) sum += sums[i][lane];
    out[c] = from_float<TYPE>((float)sum);
}

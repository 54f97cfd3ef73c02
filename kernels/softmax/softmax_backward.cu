// Softmax and log-softmax, backward, from their results (rows, n). Formulas in reference.py.
//
//     softmax: dx = p * (dout - sum_j dout_j p_j)        logarithm: dx = dout - exp(out) * sum_j dout_j
//
// Threads: as in softmax.cu, a team for each row. It holds two rows in registers, out and dout, from sum to result.
//
// Why this is fast: two reads and a write for each number; the floor is 6 bytes / bandwidth in bfloat16: 16384 x 4096
// on an H200 (4.3 TB/s): 94 us.
#include "rows.cuh"

template <bool LOG>
DEVICE void softmax_rows_backward(const TYPE* dout, const TYPE* out, TYPE* dx, long long rows, int n, float* scratch) {
    long long r = team_row();
    if (r >= rows) return;
    dx += r * n;
    Row<TYPE> p(out + r * n, n, 0.0f), d(dout + r * n, n, 0.0f, p.begin);

    float total = 0.0f;
    for (int start = p.begin; start < n; start += CHUNK) {
        p.fetch(start);
        d.fetch(start);
#pragma unroll
        for (int k = 0; k < PACKS; k++) {
            Numbers<TYPE> p_k = p.pack(k, total), d_k = d.pack(k, total);
#pragma unroll
            for (int e = 0; e < N; e++) total += d_k[e] * (LOG ? 1.0f : p_k[e]);
        }
    }
    total = team_sum(total, scratch);

    for (int start = p.begin; start < n; start += CHUNK) {
        p.fetch(start);
        d.fetch(start);
#pragma unroll
        for (int k = 0; k < PACKS; k++) {
            Numbers<TYPE> p_k = p.pack(k), d_k = d.pack(k), result;
#pragma unroll
            for (int e = 0; e < N; e++)
                result.set(e, LOG ? d_k[e] - exp_for<TYPE>(p_k[e]) * total : p_k[e] * (d_k[e] - total));
            store_numbers(dx, column(start, k), n, result);
        }
    }
}

// Grid: enough blocks for a team for each row. Block: THREADS.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
softmax_backward(const TYPE* dout, const TYPE* out, TYPE* dx, long long rows, int n) {
    __shared__ float scratch[SCRATCH];
    softmax_rows_backward<false>(dout, out, dx, rows, n, scratch);
}
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
log_softmax_backward(const TYPE* dout, const TYPE* out, TYPE* dx, long long rows, int n) {
    __shared__ float scratch[SCRATCH];
    softmax_rows_backward<true>(dout, out, dx, rows, n, scratch);
}

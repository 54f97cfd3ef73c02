// Softmax and log-softmax over the rows of x (rows, n), forward. Formulas in reference.py.
//
//     p = exp(x - max x) / sum exp(x - max x)        log p = (x - max x) - log sum exp(x - max x)
//
// Threads: a row is the work of a team of TEAM threads, a warp or a block; which numbers a thread holds, and how the
// row stays in registers between the passes over it, is in rows.cuh. Read softmax_rows below as three steps:
//
//     1. each thread finds the maximum of its numbers and the sum of their exponentials, below its own maximum
//     2. the team finds the maximum of all; each thread's sum is brought below it and the team adds them up
//     3. each thread writes exp(x - max) / sum
//
// Step 1 is the online softmax: a larger maximum, pack by pack, scales down the sum so far. So a row that does not fit
// into registers is read twice, not three times, and one that fits is read once.
//
// Why this is fast: a softmax does 2 exponentials a number and moves 2 numbers (x in, p out), 4 bytes in bfloat16. That
// is the floor: bytes / bandwidth, 16384 x 4096 in bfloat16 on an H200 (4.3 TB/s): 62 us.
#include "rows.cuh"

template <bool LOG> DEVICE void softmax_rows(const TYPE* x, TYPE* out, long long rows, int n, float* scratch) {
    long long r = team_row();
    if (r >= rows) return;                    // the whole team
    out += r * n;
    Row<TYPE> row(x + r * n, n, -INFINITY);

    float top = -INFINITY, total = 0.0f;      // of this thread's numbers
    for (int start = row.begin; start < n; start += CHUNK) {
        row.fetch(start);
#pragma unroll
        for (int k = 0; k < PACKS; k++) {
            Numbers<TYPE> x_k = row.pack(k, total);
            float before = top;
#pragma unroll
            for (int e = 0; e < N; e++) top = fmaxf(top, x_k[e]);
            float shift = top == -INFINITY ? 0.0f : top;   // nothing but -inf so far: exp(-inf - 0) = 0, no NaN
            total *= exp_for<TYPE>(before - shift);
#pragma unroll
            for (int e = 0; e < N; e++) total += exp_for<TYPE>(x_k[e] - shift);
        }
    }

    float highest = team_max(top, scratch);
    total = team_sum(total * (top == -INFINITY ? 0.0f : exp_for<TYPE>(top - highest)), scratch);
    float scale = 1.0f / total, log_total = LOG ? logf(total) : 0.0f;

    for (int start = row.begin; start < n; start += CHUNK) {
        row.fetch(start);
#pragma unroll
        for (int k = 0; k < PACKS; k++) {
            Numbers<TYPE> x_k = row.pack(k), result;
#pragma unroll
            for (int e = 0; e < N; e++) {
                float z = x_k[e] - highest;
                result.set(e, LOG ? z - log_total : exp_for<TYPE>(z) * scale);
            }
            store_numbers(out, column(start, k), n, result);
        }
    }
}

// Grid: enough blocks for a team for each row. Block: THREADS.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
softmax_forward(const TYPE* x, TYPE* out, long long rows, int n) {
    __shared__ float scratch[SCRATCH];
    softmax_rows<false>(x, out, rows, n, scratch);
}
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
log_softmax_forward(const TYPE* x, TYPE* out, long long rows, int n) {
    __shared__ float scratch[SCRATCH];
    softmax_rows<true>(x, out, rows, n, scratch);
}

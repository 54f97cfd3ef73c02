// RMSNorm over the rows of x (rows, n), forward. Formulas in reference.py; the backward pass is rmsnorm_backward.cu.
//
//     out = x * rstd * weight        rstd = 1 / sqrt(sum x^2 / n + eps)        x may be x + residual
//
// Threads: as in layernorm.cu, with one sum less: a team (a warp or a block) holds a row in registers, adds up its
// squares, and scales it. Where float cannot hold the squares, it is read again, number by number, in double.
//
// Why this is fast: one read and one write of each number; weight comes from the cache. Its floor is bytes / bandwidth:
// 16384 x 4096 in bfloat16 on an H200 (4.3 TB/s): 62 us.
#include "norm_rows.cuh"

// A row whose squares float does not hold, in double: its rstd, and out.
DEVICE double slowly(const TYPE* x, const TYPE* weight, TYPE* out, int n, float eps, double* scratch) {
    team_lanes_sync();                        // x may be a total that other lanes have written
    double sum = 0.0;
    for (int i = member(); i < n; i += TEAM) sum += (double)to_float(x[i]) * to_float(x[i]);
    double rstd = 1.0 / sqrt(team_sum(sum, scratch) / n + eps);
    for (int i = member(); i < n; i += TEAM)
        out[i] = from_float<TYPE>((float)(to_float(x[i]) * rstd * (weight ? to_float(weight[i]) : 1.0f)));
    return rstd;
}

// weight (n), residual and total (rows, n): null where there are none. rstd (rows) in float.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
rmsnorm_forward(const TYPE* x, const TYPE* weight, const TYPE* residual, TYPE* out, float* rstd, TYPE* total,
                long long rows, int n, float eps) {
    __shared__ double scratch[SCRATCH];
    long long r = team_row();
    if (r >= rows) return;                    // the whole team
    Row<TYPE> row(x + r * n, n, 0.0f);
    out += r * n;
    if (residual) add_residual(row, residual + r * n, total + r * n);

    float sum = 0.0f;
    for (int start = row.begin; start < n; start += CHUNK) {
        row.fetch(start);
#pragma unroll
        for (int k = 0; k < PACKS; k++) {
            Numbers<TYPE> x_k = row.pack(k, sum);
#pragma unroll
            for (int e = 0; e < N; e++) sum += x_k[e] * x_k[e];              // 0 outside the row
        }
    }
    float square = team_sum(sum, (float*)scratch) / n, rstd_r = 1.0f / sqrtf(square + eps);
    if (!(square < 1e30f && square + eps > 1e-28f)) {                        // too large or too small for float, or NaN
        rstd_r = (float)slowly(row.row, weight, out, n, eps, scratch);
    } else {
        for (int start = row.begin; start < n; start += CHUNK) {
            row.fetch(start);
#pragma unroll
            for (int k = 0; k < PACKS; k++) {
                int i = column(start, k);
                Numbers<TYPE> x_k = row.pack(k), w, result;
                if (weight) w = load_numbers(weight, i, n, 0.0f);
#pragma unroll
                for (int e = 0; e < N; e++) {
                    float y = x_k[e] * rstd_r;
                    result.set(e, weight ? y * w[e] : y);
                }
                store_numbers(out, i, n, result);
            }
        }
    }
    if (member() == 0) rstd[r] = rstd_r;
}

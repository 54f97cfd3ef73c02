// LayerNorm over the rows of x (rows, n), forward. Formulas in reference.py; backward: layernorm_backward.cu.
//
//     out = (x - mean) * rstd * weight + bias        rstd = 1 / sqrt(var + eps)        x may be x + residual
//
// Threads: a row is the work of a team, a warp or a block, which holds it in registers through all passes (rows.cuh):
//
//     1. centre = sum x / n. It is the mean up to its own rounding, which may be large: float knows 40000 to 0.004
//     2. with d = x - centre: shift = sum d / n, what the centre lacks, and var = sum d^2 / n - shift^2. Nothing
//        cancels, since the shift is tiny
//     3. out = (d - shift) * rstd * weight + bias
//
// Where float cannot hold the squares (|x| beyond 1e15, or below 1e-14 and no eps) the row is read again, number by
// number, in double: rare, and the same for a whole team.
//
// Why this is fast: one read and one write of each number; weight and bias come from the cache. Its floor is bytes /
// bandwidth: 16384 x 4096 in bfloat16 on an H200 (4.3 TB/s): 62 us.
#include "norm_rows.cuh"

// A row whose squares float does not hold, in double: its mean and rstd, and out.
struct Wide { double mean, rstd; };
DEVICE Wide slowly(const TYPE* x, const TYPE* weight, const TYPE* bias, TYPE* out, int n, float eps, double* scratch) {
    team_lanes_sync();                        // x may be a total that other lanes have written
    double sum = 0.0, squares = 0.0;
    for (int i = member(); i < n; i += TEAM) sum += to_float(x[i]);
    double mean = team_sum(sum, scratch) / n;
    for (int i = member(); i < n; i += TEAM) squares += (to_float(x[i]) - mean) * (to_float(x[i]) - mean);
    double rstd = 1.0 / sqrt(team_sum(squares, scratch) / n + eps);
    for (int i = member(); i < n; i += TEAM) {
        double y = (to_float(x[i]) - mean) * rstd * (weight ? to_float(weight[i]) : 1.0f);
        out[i] = from_float<TYPE>((float)(y + (bias ? to_float(bias[i]) : 0.0f)));
    }
    return {mean, rstd};
}

// weight, bias (n), residual and total (rows, n): null where there are none. mean, rstd (rows) in float.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
layernorm_forward(const TYPE* x, const TYPE* weight, const TYPE* bias, const TYPE* residual, TYPE* out, float* mean,
                  float* rstd, TYPE* total, long long rows, int n, float eps) {
    __shared__ double scratch[SCRATCH];
    float* floats = (float*)scratch;
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
            for (int e = 0; e < N; e++) sum += x_k[e];                       // 0 outside the row
        }
    }
    float centre = team_sum(sum, floats) / n;

    float sums[2] = {0.0f, 0.0f};             // of d and of d^2
    for (int start = row.begin; start < n; start += CHUNK) {
        row.fetch(start);
#pragma unroll
        for (int k = 0; k < PACKS; k++) {
            Numbers<TYPE> x_k = row.pack(k, sums[1]);
#pragma unroll
            for (int e = 0; e < N; e++) {
                float d = inside(column(start, k) + e, n) ? x_k[e] - centre : 0.0f;
                sums[0] += d;
                sums[1] += d * d;
            }
        }
    }
    team_sums(sums, floats);
    float shift = sums[0] / n, variance = sums[1] / n - shift * shift;
    float mean_r = centre + shift, rstd_r = 1.0f / sqrtf(variance + eps);
    if (!(variance < 1e30f && variance + eps > 1e-28f)) {                    // too large or too small for float, or NaN
        Wide wide = slowly(row.row, weight, bias, out, n, eps, scratch);
        mean_r = (float)wide.mean;
        rstd_r = (float)wide.rstd;
    } else {
        for (int start = row.begin; start < n; start += CHUNK) {
            row.fetch(start);
#pragma unroll
            for (int k = 0; k < PACKS; k++) {
                int i = column(start, k);
                Numbers<TYPE> x_k = row.pack(k), w, b, result;
                if (weight) w = load_numbers(weight, i, n, 0.0f);
                if (bias) b = load_numbers(bias, i, n, 0.0f);
#pragma unroll
                for (int e = 0; e < N; e++) {
                    float y = (x_k[e] - centre - shift) * rstd_r;
                    if (weight) y *= w[e];
                    result.set(e, bias ? y + b[e] : y);
                }
                store_numbers(out, i, n, result);
            }
        }
    }
    if (member() == 0) {
        mean[r] = mean_r;
        rstd[r] = rstd_r;
    }
}

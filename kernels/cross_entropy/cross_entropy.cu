// Softmax cross-entropy of logits z (rows, n) and class numbers y: the loss and the gradient of each row, in one pass.
// Formulas in reference.py, and for softcap and z_loss in ../linear_cross_entropy/reference.py:
//
//     z = cap * tanh(u / cap), or u             lse = log sum_c exp(z_c)              s = smoothing, W = sum_c w_c
//     loss = (1 - s) w_y (lse - z_y) + s / n sum_c w_c (lse - z_c) + z_loss lse^2
//     dz_c = factor * ((direct + spread W + 2 z_loss lse) p_c - spread w_c - direct [c = y])   p = exp(z - lse)
//     du_c = dz_c * (1 - (z_c / cap)^2)                                direct = (1 - s) w_y, spread = s / n
//
// Threads: a row is the work of a team, as in softmax.cu: maximum and sum of exponentials in one pass over what the
// threads hold in registers, then the gradient from the same registers. The probabilities are never stored. dz may be u
// itself: a thread reads a number before it writes it, and z_y is read before anything is written.
// Distances are taken from z_y, known from the start: sum_c w_c (lse - z_c) = W (lse - z_y) + sum_c w_c (z_y - z_c).
//
// Why this is fast: each logit is read once and its gradient written once, 4 bytes in bfloat16, where softmax, loss and
// gradient apart would move 10. Its floor: 16384 x 50304 in bfloat16 on an H200 (4.3 TB/s): 0.77 ms.
// Rows beyond TEAM * PACKS packs (28672 floats) are read twice, the second time from the L2 cache.
#include "rows.cuh"

#ifndef CAPPED
#define CAPPED 0       // 1: with softcap
#endif
#ifndef SMOOTHED
#define SMOOTHED 0     // 1: with label smoothing
#endif
DEVICE float capped(float u, float cap) { return CAPPED ? cap * tanhf(u / cap) : u; }

// loss, lse (rows) float, dz (rows, n): null for what is not wanted. weight (n), weight_sum (1): null for ones.
// factors (rows) float: null where all rows have `factor`. A target outside 0 .. n - 1 gives NaN, and reads nothing.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
cross_entropy(const TYPE* u, const long long* targets, const float* factors, const TYPE* weight,
              const float* weight_sum, float* loss, float* lse, TYPE* dz, long long rows, int n, long long ignore_index,
              float factor, float smoothing, float cap, float z_loss) {
    __shared__ float scratch[SCRATCH];
    long long r = team_row();
    if (r >= rows) return;                    // the whole team
    long long target = targets[r];
    bool ignored = target == ignore_index, wrong = !ignored && (target < 0 || target >= n);
    int y = (int)target;
    u += r * n;
    if (dz) dz += r * n;
    if (ignored || wrong) {
        float value = wrong ? NAN : 0.0f;
        if (member() == 0 && loss) loss[r] = lse[r] = value;
        if (dz)
            for (int c = member(); c < n; c += TEAM) dz[c] = from_float<TYPE>(value);
        return;
    }

    float z_y = SMOOTHED ? capped(to_float(u[y]), cap) : 0.0f;
    Row<TYPE> row(u, n, -INFINITY);
    float top = -INFINITY, total = 0.0f, distance = 0.0f;   // of this thread's classes; sum of w_c (z_y - z_c)
    for (int start = row.begin; start < n; start += CHUNK) {
        row.fetch(start);
#pragma unroll
        for (int k = 0; k < PACKS; k++) {
            int i = column(start, k);
            Numbers<TYPE> u_k = row.pack(k, total), w;
            float before = capped(top, cap);
#pragma unroll
            for (int e = 0; e < N; e++) top = fmaxf(top, u_k[e]);
            float shift = capped(top, cap);
            if (shift == -INFINITY) shift = 0.0f;  // nothing but -inf so far: exp(-inf - 0) = 0, no NaN
            total *= exp_for<TYPE>(before - shift);
            if (SMOOTHED && weight) w = load_numbers(weight, i, n, 0.0f);
#pragma unroll
            for (int e = 0; e < N; e++) {
                float z = capped(u_k[e], cap);
                if (!CAPPED && !SMOOTHED) {
                    total += exp_for<TYPE>(z - shift);                       // 0 outside the row, where z is -inf
                } else if (inside(i + e, n)) {
                    total += exp_for<TYPE>(z - shift);
                    if (SMOOTHED) distance += (weight ? w[e] : 1.0f) * (z_y - z);
                }
            }
        }
    }
    top = capped(top, cap);
    float highest = team_max(top, scratch);
    if (!SMOOTHED) z_y = capped(to_float(u[y]), cap);   // only now: one register less in the loop
    float sums[2] = {total * (top == -INFINITY ? 0.0f : exp_for<TYPE>(top - highest)), distance};
    team_sums(sums, scratch);
    team_lanes_sync();                        // all have read u[y], before dz, which may be u, is written
    float log_total = logf(sums[0]), lse_r = highest + log_total, all = weight ? *weight_sum : (float)n;
    float direct = (1.0f - smoothing) * (weight ? to_float(weight[y]) : 1.0f), spread = smoothing / n;
    if (member() == 0 && loss) {
        float below = highest - z_y + log_total;                             // lse - z_y, exact for large logits too
        float value = direct * below + z_loss * lse_r * lse_r;
        loss[r] = SMOOTHED ? value + spread * (all * below + sums[1]) : value;
        lse[r] = lse_r;
    }
    if (!dz) return;

    float f = factors ? factors[r] : factor;
    float share = f * (direct + spread * all + 2.0f * z_loss * lse_r) / sums[0];
    for (int start = row.begin; start < n; start += CHUNK) {
        row.fetch(start);
#pragma unroll
        for (int k = 0; k < PACKS; k++) {
            int i = column(start, k);
            Numbers<TYPE> u_k = row.pack(k), w, result;
            if (SMOOTHED && weight) w = load_numbers(weight, i, n, 0.0f);
#pragma unroll
            for (int e = 0; e < N; e++) {
                float z = capped(u_k[e], cap);
                float d = share * exp_for<TYPE>(z - highest);
                if (SMOOTHED) d -= f * spread * (weight ? w[e] : 1.0f);
                if (i + e == y) d -= f * direct;
                if (CAPPED) d *= 1.0f - (z / cap) * (z / cap);
                result.set(e, d);
            }
            store_numbers(dz, i, n, result);
        }
    }
}

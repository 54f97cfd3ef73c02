// Attention, forward and backward. Rung 1: fused, one multiplication at a time; the one to learn from, and the one that
// does all cases: any head dim up to 256, any mask, float, bf16 and f16 (computed in float).
//
//     s_ij = scale q_i . k_j + bias_ij      p_ij = exp(s_ij - lse_i)      out_i = sum_j p_ij v_j
//
// Backward: reference.py. Arrays are contiguous: q (B, H, T, D), k and v (B, HKV, S, D), lse and delta (B, H, T) of
// float; bias has strides (0 where it repeats), or is null.
//
// Threads: a block is WARPS warps, a warp owns one row (a query; in attention_backward_kv a key). The other side comes
// in tiles of 32 rows, shared by the block. Within a tile each lane first takes one of the 32 rows and computes its
// score alone (a dot product over the channels); then it takes the channels lane, lane + 32, ... of the result and adds
// up the 32 rows. So a score needs no reduction, and a sum over channels crosses lanes only through shared memory.
// The scores are never in memory. Forward rescales its sums whenever the largest score grows (online softmax).
// With dropout a weight p_ij counts kept_ij times: 0, or 1 / (1 - p); the numbers that decide are made where needed.
// No atomics: dq has one owner per query, dk and dv one per key, so that results repeat to the bit.
//
// Its floor: a multiplication and addition for each number read from shared memory, of which a multiprocessor reads 32
// in a cycle: some 5 % of what tensor cores multiply. Rung 2 goes there.
#include "band.cuh"
#include "philox.cuh"

#ifndef TYPE
#define TYPE float
#endif
#ifndef HEAD_DIM
#define HEAD_DIM 64
#endif
#ifndef WARPS
#define WARPS 4                         // rows per block: 8 fit into 48 KB of shared memory up to HEAD_DIM 240
#endif
#define CHANNELS ((HEAD_DIM + 31) / 32) // channels per lane

struct Strides { long long b, h, i, j; };   // of the bias, in elements
struct Dropout { u64 seed, position; float p, factor; };   // p: the probability of a zero; factor 1 / (1 - p)

typedef float Tile[32][HEAD_DIM | 1];   // odd, so that 32 lanes reading a column hit 32 banks

__device__ float bias_at(const TYPE* bias, Strides a, int b, int h, int i, int j) {
    return bias ? to_float(bias[b * a.b + h * a.h + i * a.i + j * a.j]) : 0.0f;
}

// How often weight (i, j) counts; row = (b H + h) T + i. The number is word row * S + j of (seed, position).
__device__ float kept(Dropout drop, long long row, int j, int S) {
    if (drop.p == 0.0f) return 1.0f;
    u64 e = (u64)row * S + j;
    Words four = philox(drop.position + e / 4, drop.seed);
    u32 word = e % 4 < 2 ? (e % 4 ? four.x[1] : four.x[0]) : (e % 4 == 2 ? four.x[2] : four.x[3]);
    return (word >> 8) * 0x1p-24f >= drop.p ? drop.factor : 0.0f;
}

// The whole block: rows first..first + 31 of x (n, D) into the tile. The barriers keep earlier readers and later apart.
__device__ void load_tile(Tile& tile, const TYPE* x, int first, int n) {
    __syncthreads();
    for (int e = threadIdx.x; e < 32 * HEAD_DIM; e += 32 * WARPS) {
        int r = e / HEAD_DIM, d = e % HEAD_DIM;
        if (first + r < n) tile[r][d] = to_float(x[(long long)(first + r) * HEAD_DIM + d]);
    }
    __syncthreads();
}

__device__ float dot(const float* x, const float* y) {
    float sum = 0.0f;
    for (int d = 0; d < HEAD_DIM; d++) sum += x[d] * y[d];
    return sum;
}

// sum[channel] += sum_r weight[r] tile[r][channel]. A weight of 0 is a row not seen: skipped, as 0 * NaN is NaN.
__device__ void add_rows(float (&sum)[CHANNELS], const float* weight, const Tile& tile) {
    int lane = threadIdx.x % 32;
    for (int r = 0; r < 32; r++) {
        if (weight[r] == 0.0f) continue;  // the same for all lanes of the warp
        for (int c = 0; c < CHANNELS; c++)
            if (lane + 32 * c < HEAD_DIM) sum[c] += weight[r] * tile[r][lane + 32 * c];
    }
}

// One warp per query: grid B * H * ceil(T / WARPS), block 32 * WARPS.
extern "C" __global__ void attention_forward(const TYPE* q, const TYPE* k, const TYPE* v, const TYPE* bias,
                                             Strides strides, Sizes n, Band band, Dropout drop, float scale,
                                             TYPE* out, float* lse) {
    __shared__ Tile tile;
    __shared__ float q_row[WARPS][HEAD_DIM], weights[WARPS][32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int blocks = (n.T + WARPS - 1) / WARPS, head = blockIdx.x / blocks, b = head / n.H, h = head % n.H;
    int i0 = blockIdx.x % blocks * WARPS, i = i0 + warp;
    long long row = (long long)head * n.T + i, kv = (long long)(b * n.HKV + h / (n.H / n.HKV)) * n.S * HEAD_DIM;
    if (i < n.T)
        for (int d = lane; d < HEAD_DIM; d += 32) q_row[warp][d] = to_float(q[row * HEAD_DIM + d]);

    float top = -INFINITY, total = 0.0f, sum[CHANNELS] = {};
    int stop = stop_key(band, min(i0 + WARPS, n.T) - 1, n.S);
    for (int j0 = first_key(band, i0); j0 < stop; j0 += 32) {
        int j = j0 + lane;
        load_tile(tile, k + kv, j0, n.S);
        float s = -INFINITY, extra = 0.0f;
        if (i < n.T && j < n.S && sees(band, i, j) && (extra = bias_at(bias, strides, b, h, i, j)) != -INFINITY)
            s = scale * dot(q_row[warp], tile[lane]) + extra;
        float new_top = fmaxf(top, warp_max(s));
        float shift = new_top == -INFINITY ? 0.0f : new_top;  // nothing seen yet
        float p = expf(s - shift), rescale = expf(top - shift);
        total = total * rescale + warp_sum(p);
        top = new_top;
        weights[warp][lane] = p == 0.0f ? 0.0f : p * kept(drop, row, j, n.S);
        for (int c = 0; c < CHANNELS; c++) sum[c] *= rescale;
        load_tile(tile, v + kv, j0, n.S);
        add_rows(sum, weights[warp], tile);
    }
    if (i >= n.T) return;
    for (int c = 0; c < CHANNELS; c++)
        if (lane + 32 * c < HEAD_DIM)
            out[row * HEAD_DIM + lane + 32 * c] = from_float<TYPE>(total == 0.0f ? 0.0f : sum[c] / total);
    if (lane == 0) lse[row] = total == 0.0f ? -INFINITY : top + logf(total);
}

// p_ij, and 0 where query i does not see key j. q_i and k_j are rows in shared memory.
__device__ float probability(const float* q_i, const float* k_j, float lse, float extra, float scale) {
    return extra == -INFINITY || lse == -INFINITY ? 0.0f : expf(scale * dot(q_i, k_j) + extra - lse);
}

// One warp per query, as in forward; delta (B, H, T) = dout . out per query, which the next kernel reads.
extern "C" __global__ void attention_backward_q(const TYPE* dout, const TYPE* q, const TYPE* k, const TYPE* v,
                                                const TYPE* out, const float* lse, const TYPE* bias, Strides strides,
                                                Sizes n, Band band, Dropout drop, float scale, float* delta, TYPE* dq) {
    __shared__ Tile tile;
    __shared__ float q_row[WARPS][HEAD_DIM], dout_row[WARPS][HEAD_DIM], weights[WARPS][32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int blocks = (n.T + WARPS - 1) / WARPS, head = blockIdx.x / blocks, b = head / n.H, h = head % n.H;
    int i0 = blockIdx.x % blocks * WARPS, i = i0 + warp;
    long long row = (long long)head * n.T + i, kv = (long long)(b * n.HKV + h / (n.H / n.HKV)) * n.S * HEAD_DIM;
    float part = 0.0f, sum[CHANNELS] = {};
    if (i < n.T)
        for (int d = lane; d < HEAD_DIM; d += 32) {
            q_row[warp][d] = to_float(q[row * HEAD_DIM + d]);
            dout_row[warp][d] = to_float(dout[row * HEAD_DIM + d]);
            part += dout_row[warp][d] * to_float(out[row * HEAD_DIM + d]);
        }
    float delta_i = warp_sum(part), lse_i = i < n.T ? lse[row] : -INFINITY;

    int stop = stop_key(band, min(i0 + WARPS, n.T) - 1, n.S);
    for (int j0 = first_key(band, i0); j0 < stop; j0 += 32) {
        int j = j0 + lane;
        bool seen = i < n.T && j < n.S && sees(band, i, j);
        load_tile(tile, v + kv, j0, n.S);
        float dp = seen ? kept(drop, row, j, n.S) * dot(dout_row[warp], tile[lane]) : 0.0f;
        load_tile(tile, k + kv, j0, n.S);
        float extra = seen ? bias_at(bias, strides, b, h, i, j) : -INFINITY;
        float p = probability(q_row[warp], tile[lane], lse_i, extra, scale);
        weights[warp][lane] = p == 0.0f ? 0.0f : scale * p * (dp - delta_i);
        __syncwarp();
        add_rows(sum, weights[warp], tile);
    }
    if (i >= n.T) return;
    for (int c = 0; c < CHANNELS; c++)
        if (lane + 32 * c < HEAD_DIM) dq[row * HEAD_DIM + lane + 32 * c] = from_float<TYPE>(sum[c]);
    if (lane == 0) delta[row] = delta_i;
}

// One warp per key: grid B * HKV * ceil(S / WARPS). Tiles of queries, of every head that reads this kv head.
extern "C" __global__ void attention_backward_kv(const TYPE* dout, const TYPE* q, const TYPE* k, const TYPE* v,
                                                 const float* lse, const float* delta, const TYPE* bias,
                                                 Strides strides, Sizes n, Band band, Dropout drop, float scale,
                                                 TYPE* dk, TYPE* dv) {
    __shared__ Tile tile;
    __shared__ float k_row[WARPS][HEAD_DIM], v_row[WARPS][HEAD_DIM], weights[WARPS][32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = n.H / n.HKV;
    int blocks = (n.S + WARPS - 1) / WARPS, head = blockIdx.x / blocks, b = head / n.HKV;
    int j0 = blockIdx.x % blocks * WARPS, j = j0 + warp;
    long long row = (long long)head * n.S + j;
    if (j < n.S)
        for (int d = lane; d < HEAD_DIM; d += 32) {
            k_row[warp][d] = to_float(k[row * HEAD_DIM + d]);
            v_row[warp][d] = to_float(v[row * HEAD_DIM + d]);
        }

    float sum_k[CHANNELS] = {}, sum_v[CHANNELS] = {};
    int stop = stop_query(band, min(j0 + WARPS, n.S) - 1, n.T);
    for (int h = head % n.HKV * group; h < (head % n.HKV + 1) * group; h++) {
        long long first = (long long)(b * n.H + h) * n.T;
        for (int i0 = first_query(band, j0); i0 < stop; i0 += 32) {
            int i = i0 + lane;
            bool seen = i < n.T && j < n.S && sees(band, i, j);
            load_tile(tile, q + first * HEAD_DIM, i0, n.T);
            float extra = seen ? bias_at(bias, strides, b, h, i, j) : -INFINITY;
            float p = probability(tile[lane], k_row[warp], seen ? lse[first + i] : -INFINITY, extra, scale);
            float times = p == 0.0f ? 0.0f : kept(drop, first + i, j, n.S);
            weights[warp][lane] = p * times;
            load_tile(tile, dout + first * HEAD_DIM, i0, n.T);
            add_rows(sum_v, weights[warp], tile);
            float dp = p == 0.0f ? 0.0f : times * dot(tile[lane], v_row[warp]);
            __syncwarp();  // all lanes have read p before ds takes its place
            weights[warp][lane] = p == 0.0f ? 0.0f : scale * p * (dp - delta[first + i]);
            load_tile(tile, q + first * HEAD_DIM, i0, n.T);  // again: one tile of shared memory is enough for D = 256
            add_rows(sum_k, weights[warp], tile);
        }
    }
    if (j >= n.S) return;
    for (int c = 0; c < CHANNELS; c++)
        if (lane + 32 * c < HEAD_DIM) {
            dk[row * HEAD_DIM + lane + 32 * c] = from_float<TYPE>(sum_k[c]);
            dv[row * HEAD_DIM + lane + 32 * c] = from_float<TYPE>(sum_v[c]);
        }
}

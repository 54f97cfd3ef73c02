// Attention forward on tensor cores (sm_80 and later). Rung 2: products by mma instead of by single multiplications.
//
//     s_ij = scale q_i . k_j      p_ij = exp(s_ij - lse_i)      out_i = sum_j p_ij v_j
//
// q, out (B, H, T, D) and k, v (B, HKV, S, D) of bf16 or f16, D 64 or 128, lse (B, H, T) of float: contiguous, rows at
// multiples of 16 bytes. Sums, softmax and lse are float; p is rounded to TYPE for its product with v.
//
// Threads: a block is 4 warps and takes 64 queries of one head, 16 a warp. Keys and values come in tiles of 64 by
// cp.async, which goes past the registers and needs no thread to wait: the values travel while the scores are computed,
// the next keys while the values are used. The products take their operands from shared memory with ldmatrix
// (tiles.cuh tells how, and why the tiles are swizzled). A lane holds two rows of scores, so that the softmax needs two
// shuffles for the largest score and, once at the end, two for the sum.
//
// Why it is fast: mma does 4096 multiplications and additions in an instruction, and the T x S scores never leave the
// registers. What it still pays: q is read from shared memory again for every tile; rungs 3 and later keep it.
// Floor: 4 T S D FLOPs a head (half if causal). Expected on an H200 250-330 TFLOP/s (D 128); not yet measured.
//
// grid B * H * ceil(T / 64), block 128, shared memory 3 * 64 * D * 2 bytes.
#include "tiles.cuh"

constexpr int WARPS = 4, THREADS = 32 * WARPS, QUERIES = 16 * WARPS, KEYS = 64;

// Scores that are not seen become -inf. Of this lane: rows row, row + 8; columns of s[c] start at key j0 + 8 c.
DEVICE void hide(float (&s)[KEYS / 8][4], int row, int j0, Band band, int S) {
    int column = j0 + threadIdx.x % 4 * 2;
#pragma unroll
    for (int c = 0; c < KEYS / 8; c++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            int i = row + e / 2 * 8, j = column + 8 * c + e % 2;
            if (j >= S || !sees(band, i, j)) s[c][e] = -INFINITY;
        }
}

// One step of the online softmax: scores become weights exp(s - top); sum and total shrink as the largest score grows.
DEVICE void soften(float (&s)[KEYS / 8][4], float (&sum)[D / 8][4], float (&top)[2], float (&total)[2], float scale) {
    float to_log2 = scale * LOG2E;                       // exp(scale x) = 2^(to_log2 x): one instruction
#pragma unroll
    for (int h = 0; h < 2; h++) {                        // rows g and g + 8
        float largest = top[h];
#pragma unroll
        for (int c = 0; c < KEYS / 8; c++) largest = fmaxf(largest, fmaxf(s[c][2 * h], s[c][2 * h + 1]));
        largest = row_max(largest);
        float shift = largest == -INFINITY ? 0.0f : largest;   // nothing seen yet: every weight is exp(-inf)
        float shrink = exp2_approx((top[h] - shift) * to_log2), part = 0.0f;
#pragma unroll
        for (int c = 0; c < KEYS / 8; c++)
#pragma unroll
            for (int e = 2 * h; e < 2 * h + 2; e++) part += s[c][e] = exp2_approx((s[c][e] - shift) * to_log2);
        total[h] = total[h] * shrink + part;             // of this lane's columns; lanes are added at the end
        top[h] = largest;
#pragma unroll
        for (int c = 0; c < D / 8; c++) sum[c][2 * h] *= shrink, sum[c][2 * h + 1] *= shrink;
    }
}

// sum (16 x D) += p (16 x KEYS) v (KEYS x D).
template <bool MASKED> DEVICE void add_values(float (&sum)[D / 8][4], const float (&p)[KEYS / 8][4], Tile<D> v) {
#pragma unroll
    for (int j = 0; j < KEYS; j += 16) {
        u32 weights[4], b[4];
        as_operand(weights, p[j / 8], p[j / 8 + 1]);
#pragma unroll
        for (int d = 0; d < D; d += 16) {
            operand_b(b, v, j, d);
            multiply_add<MASKED>(sum[d / 8], sum[d / 8 + 1], weights, b);
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) attention_forward(const TYPE* q, const TYPE* k, const TYPE* v,
                                                                        Sizes n, Band band, float scale, TYPE* out,
                                                                        float* lse) {
    DYN_SMEM(memory);
    const Tile<D> q_tile{shared_address(memory)}, k_tile{q_tile.base + QUERIES * D * 2},
        v_tile{k_tile.base + KEYS * D * 2};
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int blocks = (n.T + QUERIES - 1) / QUERIES, head = blockIdx.x / blocks, b = head / n.H, h = head % n.H;
    int i0 = blockIdx.x % blocks * QUERIES, i1 = min(i0 + QUERIES, n.T) - 1, row = i0 + 16 * warp + lane / 4;
    int first = first_key(band, i0) / KEYS * KEYS, stop = stop_key(band, i1, n.S);
    u64 start = (u64)head * n.T * D, kv = (u64)(b * n.HKV + h / (n.H / n.HKV)) * n.S * D;

    float sum[D / 8][4] = {}, top[2] = {-INFINITY, -INFINITY}, total[2] = {};
    load_rows<QUERIES, THREADS>(q_tile, q + start, i0, n.T);
    if (first < stop) load_rows<KEYS, THREADS>(k_tile, k + kv, first, n.S);
    cp_async_commit();
    for (int j0 = first; j0 < stop; j0 += KEYS) {
        cp_async_wait<0>();
        __syncthreads();                                 // the keys are here, and nobody reads the values before
        load_rows<KEYS, THREADS>(v_tile, v + kv, j0, n.S);
        cp_async_commit();
        float s[KEYS / 8][4] = {};
#pragma unroll
        for (int d = 0; d < D; d += 16) {
            u32 a[4], b[4];
            operand_a(a, q_tile, 16 * warp, d);
#pragma unroll
            for (int j = 0; j < KEYS; j += 16) {
                operand_b_transposed(b, k_tile, d, j);
                multiply_add<false>(s[j / 8], s[j / 8 + 1], a, b);
            }
        }
        bool masked = j0 + KEYS > n.S || !sees_all(band, i0, i0 + QUERIES - 1, j0, j0 + KEYS - 1);
        if (masked) hide(s, row, j0, band, n.S);
        soften(s, sum, top, total, scale);
        cp_async_wait<0>();
        __syncthreads();                                 // the values are here, and nobody reads the keys any more
        if (j0 + KEYS < stop) load_rows<KEYS, THREADS>(k_tile, k + kv, j0 + KEYS, n.S);
        cp_async_commit();
        if (masked) add_values<true>(sum, s, v_tile);
        else add_values<false>(sum, s, v_tile);
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int i = row + 8 * h;
        float all = row_sum(total[h]), inverse = all == 0.0f ? 0.0f : 1.0f / all;
        if (i >= n.T) continue;
        u32* to = (u32*)(out + start + (u64)i * D) + lane % 4;
#pragma unroll
        for (int c = 0; c < D / 8; c++) to[4 * c] = pack2<TYPE>(sum[c][2 * h] * inverse, sum[c][2 * h + 1] * inverse);
        if (lane % 4 == 0) lse[(u64)head * n.T + i] = all == 0.0f ? -INFINITY : __fmul_rn(top[h], scale) + logf(all);
    }
}

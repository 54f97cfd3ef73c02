// Rung 4b, Hopper (sm_90a): attention's gradients with TMA and wgmma; one thread loads, two warpgroups compute.
//
//     P = exp(scale Q K^T - lse)     dP = dO V^T          dS = P * (dP - delta)      delta_i = dO_i . O_i
//     dV = P^T dO                    dK = scale dS^T Q    dQ = scale dS K
//
// A block owns 128 keys of a key/value head, 64 for each warpgroup, and walks the queries of all heads that share it,
// QUERIES at a time. Scores are computed transposed, keys as rows: P^T and dS^T then lie in the registers as the next
// products want their first operand, and dK and dV stay in registers for the whole walk. Of each tile of queries a
// warpgroup computes
//
//     S^T = K Q^T, dP^T = V dO^T      64 keys x QUERIES, operands from shared memory
//     P^T, dS^T                       in registers, rounded; dS^T also to shared memory
//     dV += P^T dO, dK += dS^T Q      64 keys x D
//     dQ += dS K                      over all 128 keys, so after a barrier of both warpgroups. Each computes 64 x 64
//                                     of it: D 64, one half of the 128 queries; D 128, one half of the channels
//
// dQ gathers in a float32 buffer in memory, to which TMA adds whole boxes (reduce-add): the order of the additions, and
// so the last bits of dq, may change from run to run. dk and dv are the same on every run.
//
// dS^T has two buffers: then one barrier a tile is enough. It says that dS^T is complete, and also that both warpgroups
// are done with the products of the tile before, which read the other buffer.
//
// Three kernels: prepare (delta, and lse padded so that what lies beyond the last query has P = 0), main, finish (dq
// rounded). Floor: 10 T S D FLOPs a head (half if causal) at 989 TFLOP/s (H200, bf16). Expected 400-550 TFLOP/s. Not
// yet measured by this project.
#include "cuda_exact.cuh"

constexpr int KEYS = 128, QUERIES = HEAD_DIM == 64 ? 128 : 64, STAGES = 2, THREADS = 3 * 128;
constexpr int PAD = 128;                          // lse and delta have rows of a multiple of PAD queries

// Shared memory, in bytes. Panels: 64 numbers (dQ: 32 floats) a row.
constexpr u32 KV_PANEL = KEYS * 128, KV_BYTES = PANELS * KV_PANEL, Q_PANEL = QUERIES * 128, Q_BYTES = PANELS * Q_PANEL;
constexpr u32 DS_PANEL = KEYS * 128, DS_BYTES = QUERIES / 64 * DS_PANEL, DQ_PANEL = 64 * 128, DQ_BYTES = 2 * DQ_PANEL;
constexpr u32 ROW_BYTES = QUERIES * 4;            // lse or delta of a tile
constexpr u32 AT_V = KV_BYTES, AT_Q = AT_V + KV_BYTES, AT_DO = AT_Q + STAGES * Q_BYTES;
constexpr u32 AT_DS = AT_DO + STAGES * Q_BYTES, AT_DQ = AT_DS + 2 * DS_BYTES;
constexpr u32 AT_LSE = AT_DQ + 2 * DQ_BYTES, AT_DELTA = AT_LSE + STAGES * ROW_BYTES;
constexpr u32 AT_BARRIERS = AT_DELTA + STAGES * ROW_BYTES;

constexpr int BOTH = 1, MINE = 2;                 // named barriers: both warpgroups; MINE + w: warpgroup w

DEVICE int padded(int T) { return (T + PAD - 1) / PAD * PAD; }

// One warp a query, padded ones too: grid B * H * padded(T) / 8, block 256. lse2: in base 2; +inf gives P = 0.
extern "C" __global__ void attention_backward_prepare(const TYPE* dout, const TYPE* out, const float* lse, Sizes n,
                                                      float* lse2, float* delta) {
    const int lane = threadIdx.x % 32, length = padded(n.T);
    const u64 row = (u64)blockIdx.x * 8 + threadIdx.x / 32, head = row / length, i = row % length;
    const u64 from = head * n.T + i;
    float sum = 0;
    if (i < n.T)
        for (int d = lane; d < HEAD_DIM; d += 32)
            sum += to_float(dout[from * HEAD_DIM + d]) * to_float(out[from * HEAD_DIM + d]);
    sum = warp_sum(sum);
    if (lane) return;
    const float l = i < n.T ? lse[from] : -INFINITY;
    lse2[row] = l == -INFINITY ? INFINITY : l * LOG2_E;
    delta[row] = sum;
}

// P^T and dS^T of one tile: s becomes P, dp becomes dS. lse2, delta: of this thread's first column.
DEVICE void probabilities(float (&s)[QUERIES / 2], const float* lse2, float scale) {
#pragma unroll
    for (int c = 0; c < QUERIES / 8; c++) {
        const float2 l = *(const float2*)(lse2 + 8 * c);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            s[4 * c + 2 * h] = exp2_approx(s[4 * c + 2 * h] * scale - l.x);
            s[4 * c + 2 * h + 1] = exp2_approx(s[4 * c + 2 * h + 1] * scale - l.y);
        }
    }
}
DEVICE void score_gradients(float (&dp)[QUERIES / 2], const float (&p)[QUERIES / 2], const float* delta) {
#pragma unroll
    for (int c = 0; c < QUERIES / 8; c++) {
        const float2 d = *(const float2*)(delta + 8 * c);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            dp[4 * c + 2 * h] = p[4 * c + 2 * h] * (dp[4 * c + 2 * h] - d.x);
            dp[4 * c + 2 * h + 1] = p[4 * c + 2 * h + 1] * (dp[4 * c + 2 * h + 1] - d.y);
        }
    }
}
// 0 where query i + column does not see key j (+ 8 in the second row).
DEVICE void mask_transposed(float (&x)[QUERIES / 2], Band m, int i, int j, int n_keys) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int key = j + 8 * h, lowest = key - m.high - i, highest = key < n_keys ? key - m.low - i : -1;
#pragma unroll
        for (int c = 0; c < QUERIES / 8; c++)
#pragma unroll
            for (int e = 0; e < 2; e++)
                if (8 * c + e < lowest || 8 * c + e > highest) x[4 * c + 2 * h + e] = 0;
    }
}

// Grid: tiles of 128 keys * heads of k, block: THREADS. Maps: (heads, length, D), boxes (1, QUERIES, 64) of q and dout,
// (1, 128, 64) of k and v, (1, 64, 64) of dk and dv, (1, 64, 32) of dq_sum (float, zeros before).
extern "C" __global__ void __launch_bounds__(THREADS, 1)
attention_backward(const __grid_constant__ TensorMap q_map, const __grid_constant__ TensorMap k_map,
                   const __grid_constant__ TensorMap v_map, const __grid_constant__ TensorMap dout_map,
                   const __grid_constant__ TensorMap dq_map, const __grid_constant__ TensorMap dk_map,
                   const __grid_constant__ TensorMap dv_map, const TYPE* q_in, const TYPE* k_in,
                   const TYPE* v_in, const TYPE* dout_in, Sizes n, Band band, float score_scale, const float* lse2,
                   const float* delta) {
    DYN_SMEM(memory);
    const u32 k = shared_address(memory), v = k + AT_V, q = k + AT_Q, dout = k + AT_DO, ds = k + AT_DS;
    const u32 kv_full = k + AT_BARRIERS, q_full = kv_full + 8, dout_full = q_full + 8 * STAGES;
    const u32 empty = dout_full + 8 * STAGES;                            // a barrier for each stage
    const int warpgroup = threadIdx.x / 128, lane = threadIdx.x % 32;
    const int blocks = (n.S + KEYS - 1) / KEYS, kv_head = blockIdx.x / blocks, group = n.H / n.HKV;
    const int j0 = (int)blockIdx.x % blocks * KEYS;                      // causal: the first keys have the most queries
    const int first = first_query(band, j0) / QUERIES;                   // tiles of queries
    const int tiles = max(0, (stop_query(band, j0 + KEYS - 1, n.T) + QUERIES - 1) / QUERIES - first);

    if (threadIdx.x == 0) {
        mbarrier_init(kv_full, 1);
        for (int s = 0; s < STAGES; s++) {
            mbarrier_init(q_full + 8 * s, 1);
            mbarrier_init(dout_full + 8 * s, 1);
            mbarrier_init(empty + 8 * s, 8);                             // one arrival a warp
        }
        mbarrier_init_fence();
    }
    __syncthreads();

    if (warpgroup == 2) {                                                // ---- the loading warp
        registers_decrease<24>();
        if (threadIdx.x != 256) return;
        mbarrier_arrive_expect(kv_full, 2 * KV_BYTES);
        for (int c = 0; c < PANELS; c++) {
            tma_load(k + c * KV_PANEL, &k_map, kv_full, 64 * c, j0, kv_head);
            tma_load(v + c * KV_PANEL, &v_map, kv_full, 64 * c, j0, kv_head);
        }
        for (int step = 0; step < group * tiles; step++) {
            const u32 stage = step % STAGES, parity = step / STAGES & 1;
            const int head = kv_head * group + step / tiles, i0 = (first + step % tiles) * QUERIES;
            const u64 row = (u64)head * padded(n.T) + i0;
            mbarrier_wait(empty + 8 * stage, parity ^ 1);                // the first time: at once
            mbarrier_arrive_expect(q_full + 8 * stage, Q_BYTES + ROW_BYTES);
            for (int c = 0; c < PANELS; c++)
                tma_load(q + stage * Q_BYTES + c * Q_PANEL, &q_map, q_full + 8 * stage, 64 * c, i0, head);
            bulk_load(k + AT_LSE + stage * ROW_BYTES, lse2 + row, ROW_BYTES, q_full + 8 * stage);
            mbarrier_arrive_expect(dout_full + 8 * stage, Q_BYTES + ROW_BYTES);
            for (int c = 0; c < PANELS; c++)
                tma_load(dout + stage * Q_BYTES + c * Q_PANEL, &dout_map, dout_full + 8 * stage, 64 * c, i0, head);
            bulk_load(k + AT_DELTA + stage * ROW_BYTES, delta + row, ROW_BYTES, dout_full + 8 * stage);
        }
        return;
    }

    registers_increase<240>();                                           // ---- the computing warpgroups
    const int thread = threadIdx.x % 128, row = thread / 32 * 16 + lane / 4, column = lane % 4 * 2;   // of its numbers
    const int my_j0 = j0 + 64 * warpgroup;                               // the warpgroup's keys
    const u32 mine = 64 * 128 * warpgroup;                               // their rows in a panel
    const u32 dq_at = k + AT_DQ + warpgroup * DQ_BYTES;
    const float scale = score_scale * LOG2_E;
    float dk[HEAD_DIM / 2], dv[HEAD_DIM / 2];
#pragma unroll
    for (int e = 0; e < HEAD_DIM / 2; e++) dk[e] = dv[e] = 0;

    mbarrier_wait(kv_full, 0);
    for (int step = 0; step < group * tiles; step++) {
        const u32 stage = step % STAGES, parity = step / STAGES & 1;
        const u32 q_at = q + stage * Q_BYTES, dout_at = dout + stage * Q_BYTES;
        const int head = kv_head * group + step / tiles, i0 = (first + step % tiles) * QUERIES;
        const float* row_lse = (const float*)(memory + AT_LSE + stage * ROW_BYTES) + column;
        const float* row_delta = (const float*)(memory + AT_DELTA + stage * ROW_BYTES) + column;
        const bool all_seen = sees_all(band, i0, i0 + QUERIES - 1, my_j0, my_j0 + 63) && my_j0 + 64 <= n.S;

        float s[QUERIES / 2], dp[QUERIES / 2];                           // S^T then P^T, dP^T then dS^T
        mbarrier_wait(q_full + 8 * stage, parity);
        wgmma_fence();
        multiply_scores(s, k + mine, KV_PANEL, q_at, Q_PANEL);
        wgmma_commit();
        mbarrier_wait(dout_full + 8 * stage, parity);
        wgmma_fence();
        multiply_scores(dp, v + mine, KV_PANEL, dout_at, Q_PANEL);
        wgmma_commit();
        wgmma_wait<1>();
        probabilities(s, row_lse, scale);
        if (!all_seen) mask_transposed(s, band, i0 + column, my_j0 + row, n.S);
        wgmma_wait<0>();
        score_gradients(dp, s, row_delta);
        if (!all_seen) mask_transposed(dp, band, i0 + column, my_j0 + row, n.S);

        u32 p[QUERIES / 16][4], d[QUERIES / 16][4];
        pack_fragments(p, s);
        pack_fragments(d, dp);
        const u32 ds_at = ds + step % 2 * DS_BYTES;                      // (key, query): fragment f, number 2 c + h is
#pragma unroll                                                           // row + 8 h, columns 16 f + 8 c + column, + 1
        for (int f = 0; f < QUERIES / 16; f++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                shared_store(swizzled_address(ds_at + f / 4 * DS_PANEL + mine, row + e % 2 * 8,
                                              (f % 4 * 16 + e / 2 * 8 + column) * 2), d[f][e]);
        fence_async_proxy();
        wgmma_fence();
        multiply_add(dv, p, dout_at, Q_PANEL);
        multiply_add(dk, d, q_at, Q_PANEL);
        wgmma_commit();
        named_barrier_sync(BOTH, 256);                                   // dS^T of all 128 keys is there

        // dQ (64 queries x 64 channels) = dS K. Both operands have the keys under each other.
        const int query_half = HEAD_DIM == 64 ? warpgroup : 0, channel_half = HEAD_DIM == 64 ? 0 : warpgroup;
        float dq[32];
#pragma unroll
        for (int c = 0; c < KEYS / 16; c++)
            wgmma_ss<TYPE, 1, 1>(dq, descriptor(ds_at + query_half * DS_PANEL + c * 16 * 128),
                                 descriptor(k + channel_half * KV_PANEL + c * 16 * 128), c > 0);
        wgmma_commit();
        wgmma_wait<1>();
        if (lane == 0) mbarrier_arrive(empty + 8 * stage);               // dV and dK have read Q and dO
        wgmma_wait<0>();

        if (thread == 0) bulk_wait_read<0>();                            // the tile before has left dq_at
        named_barrier_sync(MINE + warpgroup, 128);
#pragma unroll
        for (int c = 0; c < 8; c++)
#pragma unroll
            for (int h = 0; h < 2; h++)
                shared_store(swizzled_address(dq_at + c / 4 * DQ_PANEL, row + 8 * h, (c % 4 * 8 + column) * 4),
                             make_float2(dq[4 * c + 2 * h], dq[4 * c + 2 * h + 1]));
        fence_async_proxy();
        named_barrier_sync(MINE + warpgroup, 128);
        if (thread == 0) {
            for (int c = 0; c < 2; c++)
                tma_reduce_add(&dq_map, dq_at + c * DQ_PANEL, 64 * channel_half + 32 * c, i0 + 64 * query_half, head);
            bulk_commit();
        }
    }

    // dK and dV leave through the room of K and V. K: once both warpgroups are done with their last dQ.
    named_barrier_sync(BOTH, 256);
    if (!any_not_finite(dk) && !any_not_finite(dv)) {
        store_rows(dk, score_scale, k + mine, KV_PANEL, row, column);
        store_rows(dv, 1, v + mine, KV_PANEL, row, column);
    } else {                                                             // NaN or infinity among the inputs
        for (int r = 0; r < 16; r++) {
            const int in_tile = thread / 32 * 16 + r, j = my_j0 + in_tile;
            if (j >= n.S) break;
            Row exact_dk, exact_dv;
            exact_key_gradients({q_in, k_in, v_in, dout_in}, n, band, kv_head * group, j, scale, lse2, delta,
                                padded(n.T), exact_dk, exact_dv);
            scale_row(exact_dk, score_scale);
            store_row(exact_dk, k + mine, KV_PANEL, in_tile);
            store_row(exact_dv, v + mine, KV_PANEL, in_tile);
        }
    }
    fence_async_proxy();
    named_barrier_sync(MINE + warpgroup, 128);
    if (thread == 0) {
        for (int c = 0; c < PANELS; c++) {
            tma_store(&dk_map, k + mine + c * KV_PANEL, 64 * c, my_j0, kv_head);
            tma_store(&dv_map, v + mine + c * KV_PANEL, 64 * c, my_j0, kv_head);
        }
        bulk_commit();
        bulk_wait<0>();
    }
}

// dq = scale * dq_sum, rounded. One warp a query: grid B * H * T / 8, rounded up; block 256.
extern "C" __global__ void attention_backward_finish(const float* dq_sum, const TYPE* q_in, const TYPE* k_in,
                                                     const TYPE* v_in, const TYPE* dout_in, Sizes n, Band band,
                                                     float score_scale, const float* lse2, const float* delta,
                                                     TYPE* dq) {
    const u64 row = (u64)blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= (u64)n.B * n.H * n.T) return;
    Row x;
    float not_zero[PANELS];                       // NaN where a sum is not finite, else 0
#pragma unroll
    for (int c = 0; c < PANELS; c++) {
        x.x[c] = *(const float2*)(dq_sum + row * HEAD_DIM + 64 * c + threadIdx.x % 32 * 2);
        not_zero[c] = x.x[c].x - x.x[c].x + (x.x[c].y - x.x[c].y);
    }
    if (any_not_finite(not_zero)) {               // NaN or infinity among the inputs
        const int head = row / n.T, i = row % n.T;
        const u64 at = (u64)head * padded(n.T) + i;
        const Arrays in = {q_in, k_in, v_in, dout_in};
        x = exact_query_gradient(in, n, band, head, i, score_scale * LOG2_E, lse2[at], delta[at]);
    }
    scale_row(x, score_scale);
    store_row(x, dq + row * HEAD_DIM);
}

// Rung 4, Hopper (sm_90a): attention with TMA and wgmma, one warpgroup that loads and two or three that compute.
//
//     out = softmax(scale q k^T) v      q (B, H, T, D), k and v (B, H_kv, S, D), D 64 or 128; lse (B, H, T) float32
//
// A block owns ROWS queries of a head, 64 for each consumer warpgroup, and walks the keys 128 at a time:
//
//     producer (one thread of the last warpgroup)      consumers
//     wait until a stage of K is empty; TMA load       wait until it is full; S = Q K^T    (wgmma from shared memory)
//     the same for V                                   softmax in registers;  O += P V     (wgmma, P from registers)
//                                                      one arrival a warp: the stage is empty
//
// What is new. wgmma reads its operands from shared memory by itself: no ldmatrix, no registers for fragments of K and
// V, and tensor cores at their full rate. TMA moves a whole panel with one instruction of one thread, past the
// registers, swizzled on the way. Two stages of K and of V let the copies run ahead; while one consumer is in its
// softmax, others keep the tensor cores busy. The producer gives its registers to the consumers (setmaxnreg), who hold
// O and S.
//
// Floor: 4 T S D FLOPs a head (half if causal) at 989 TFLOP/s (H200, bf16); memory is read once for each block of ROWS
// queries, mostly from L2. Expected 450-600 TFLOP/s (D 128), 380-450 (D 64). Not yet measured by this project.
#include "cuda_exact.cuh"

constexpr int CONSUMERS = HEAD_DIM == 64 ? 3 : 2, ROWS = 64 * CONSUMERS, KEYS = 128, STAGES = 2;
constexpr int THREADS = 128 * (CONSUMERS + 1), WARPS = 4 * CONSUMERS;

// Shared memory, in bytes: Q, K and V by stage, then the barriers.
constexpr u32 Q_PANEL = ROWS * 128, Q_BYTES = PANELS * Q_PANEL, KV_PANEL = KEYS * 128, KV_BYTES = PANELS * KV_PANEL;
constexpr u32 AT_K = Q_BYTES, AT_V = AT_K + STAGES * KV_BYTES, AT_BARRIERS = AT_V + STAGES * KV_BYTES;

DEVICE void load_tile(u32 to, u32 panel, const TensorMap* map, u32 barrier, int row, int head) {
    mbarrier_arrive_expect(barrier, PANELS * panel);
#pragma unroll
    for (int c = 0; c < PANELS; c++) tma_load(to + c * panel, map, barrier, 64 * c, row, head);
}

// Grid: tiles * heads, block: THREADS. Maps: (heads, length, D), boxes (1, ROWS, 64) of q, (1, KEYS, 64) of k and v;
// *_in: the same arrays.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
attention_forward(const __grid_constant__ TensorMap q_map, const __grid_constant__ TensorMap k_map,
                  const __grid_constant__ TensorMap v_map, const TYPE* q_in, const TYPE* k_in,
                  const TYPE* v_in, Sizes n, Band band, float score_scale, TYPE* out, float* lse) {
    DYN_SMEM(memory);
    const u32 q = shared_address(memory), k = q + AT_K, v = q + AT_V;
    const u32 q_full = q + AT_BARRIERS, k_full = q_full + 8, v_full = k_full + 8 * STAGES;   // a barrier for each stage
    const u32 k_empty = v_full + 8 * STAGES, v_empty = k_empty + 8 * STAGES;
    const int warpgroup = threadIdx.x / 128, lane = threadIdx.x % 32;
    const int blocks = (n.T + ROWS - 1) / ROWS, head = blockIdx.x / blocks, kv_head = head / (n.H / n.HKV);
    const int i0 = (blocks - 1 - (int)blockIdx.x % blocks) * ROWS;       // causal: the last queries have the most keys
    const int first = first_key(band, i0) / KEYS;                        // tiles of keys
    const int stop = (stop_key(band, i0 + ROWS - 1, n.S) + KEYS - 1) / KEYS;

    if (threadIdx.x == 0) {
        mbarrier_init(q_full, 1);
        for (int s = 0; s < STAGES; s++) {
            mbarrier_init(k_full + 8 * s, 1);
            mbarrier_init(v_full + 8 * s, 1);
            mbarrier_init(k_empty + 8 * s, WARPS);
            mbarrier_init(v_empty + 8 * s, WARPS);
        }
        mbarrier_init_fence();
    }
    __syncthreads();

    if (warpgroup == CONSUMERS) {                                        // ---- producer
        registers_decrease<CONSUMERS == 3 ? 32 : 24>();
        if (threadIdx.x != CONSUMERS * 128) return;
        load_tile(q, Q_PANEL, &q_map, q_full, i0, head);
        for (int tile = first; tile < stop; tile++) {
            const u32 stage = (tile - first) % STAGES, parity = (tile - first) / STAGES & 1;
            const u32 b = 8 * stage, to = stage * KV_BYTES;
            mbarrier_wait(k_empty + b, parity ^ 1);          // the first time: at once
            load_tile(k + to, KV_PANEL, &k_map, k_full + b, tile * KEYS, kv_head);
            mbarrier_wait(v_empty + b, parity ^ 1);
            load_tile(v + to, KV_PANEL, &v_map, v_full + b, tile * KEYS, kv_head);
        }
        return;
    }

    registers_increase<CONSUMERS == 3 ? 160 : 240>();                    // ---- consumers
    const int my_i0 = i0 + 64 * warpgroup;                               // of the warpgroup
    const int i = my_i0 + threadIdx.x % 128 / 32 * 16 + lane / 4, column = lane % 4 * 2;   // of its first score
    const float scale = score_scale * LOG2_E;
    float o[HEAD_DIM / 2];
    Rows rows;
#pragma unroll
    for (int e = 0; e < HEAD_DIM / 2; e++) o[e] = 0;

    mbarrier_wait(q_full, 0);
    for (int tile = first; tile < stop; tile++) {
        const u32 stage = (tile - first) % STAGES, parity = (tile - first) / STAGES & 1;
        const u32 b = 8 * stage, at = stage * KV_BYTES;
        mbarrier_wait(k_full + b, parity);
        if (sees_nothing<KEYS>(band, my_i0, tile * KEYS, n.S)) {         // another warpgroup's keys
            mbarrier_wait(v_full + b, parity);                           // not sooner: each arrival belongs to one turn
            if (lane == 0) mbarrier_arrive(k_empty + b);
            if (lane == 0) mbarrier_arrive(v_empty + b);
            continue;
        }
        float s[KEYS / 2];
        wgmma_fence();
        multiply_scores(s, q + warpgroup * 64 * 128, Q_PANEL, k + at, KV_PANEL);
        wgmma_commit();
        wgmma_wait<0>();
        if (lane == 0) mbarrier_arrive(k_empty + b);

        if (!sees_all<KEYS>(band, my_i0, tile * KEYS, n.S)) mask_scores(s, band, i, tile * KEYS + column, n.S);
        float factor[2];
        softmax_step(s, rows, factor, scale);
        scale_rows(o, factor);
        u32 weights[KEYS / 16][4];
        pack_fragments(weights, s);

        mbarrier_wait(v_full + b, parity);
        wgmma_fence();
        multiply_add(o, weights, v + at, KV_PANEL);
        wgmma_commit();
        wgmma_wait<0>();
        if (lane == 0) mbarrier_arrive(v_empty + b);
    }

    float inverse[2], row_lse[2];
    finish_rows(rows, scale, inverse, row_lse);
    scale_rows(o, inverse);
    if (any_not_finite(o)) {                                             // NaN or infinity among the inputs
        for (int r = i - lane / 4; r < min(i - lane / 4 + 16, n.T); r++) {
            float l;
            const u64 at = (u64)head * n.T + r;
            store_row(exact_output({q_in, k_in, v_in}, n, band, head, r, scale, l), out + at * HEAD_DIM);
            if (lane == 0) lse[at] = l;
        }
        return;
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        if (i + 8 * h >= n.T) continue;
        const u64 at = (u64)head * n.T + i + 8 * h;
        u32* to = (u32*)(out + at * HEAD_DIM + column);
#pragma unroll
        for (int c = 0; c < HEAD_DIM / 8; c++) to[4 * c] = pack2<TYPE>(o[4 * c + 2 * h], o[4 * c + 2 * h + 1]);
        if (column == 0) lse[at] = row_lse[h];
    }
}

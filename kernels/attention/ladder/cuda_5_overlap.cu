// Rung 5, Hopper (sm_90a): rung 4, with the softmax of one tile behind the products of its neighbours.
//
//     out = softmax(scale q k^T) v      as in rung 4; lse (B, H, T) float32
//
// Exponentials take half as long as the products (D 64: just as long); one after the other, the tensor cores wait. Two
// changes let both run at the same time, two more keep all of the GPU busy:
//
//   overlap      a warpgroup issues S' = Q K'^T of the next tile and O += P V of this one together, and computes the
//                softmax of S' while O += P V still runs
//   ping-pong    warpgroups take turns with named barriers: while one computes its softmax, another's products run.
//                Without turns they would all wait for the tensor cores, then all for the exponentials
//   TMA store    O leaves through the room of Q in shared memory, whole tiles at a time; rows past the end are cut off
//   persistent   as many blocks as the GPU has multiprocessors, each walks a list of tiles; the loads of its next tile
//                are under way before this one ends. Heaviest tiles first (causal: the last queries), alternately from
//                the front and the back, so that all blocks end at about the same time. Heads in sections whose K and V
//                fit in L2
//
// Without a mask and with D 128 a tile has 176 keys (-DKEYS=176), as many as fit: fewer waits for the same products.
//
// Floor as rung 4. Expected 600-650 TFLOP/s (D 128), 450-500 (D 64). Not yet measured by this project.
// Ideas: Shah et al. 2024, "FlashAttention-3".
#include "cuda_exact.cuh"

#ifndef SOFTMAX_STEP
#define SOFTMAX_STEP softmax_step
#endif

#ifndef KEYS
#define KEYS 128                                  // of a tile; D 128 has room for 176
#endif
constexpr int CONSUMERS = HEAD_DIM == 64 ? 3 : 2, ROWS = 64 * CONSUMERS, STAGES = 2;
constexpr int THREADS = 128 * (CONSUMERS + 1), WARPS = 4 * CONSUMERS;

// Shared memory, in bytes: Q (later O), K and V by stage, then the barriers.
constexpr u32 Q_PANEL = ROWS * 128, Q_BYTES = PANELS * Q_PANEL, KV_PANEL = KEYS * 128, KV_BYTES = PANELS * KV_PANEL;
constexpr u32 AT_K = Q_BYTES, AT_V = AT_K + STAGES * KV_BYTES, AT_BARRIERS = AT_V + STAGES * KV_BYTES;

constexpr int TURN = 1, MINE = 1 + CONSUMERS;     // named barriers: TURN + w, warpgroup w's turn; MINE + w, its own

// A block's list of work: in round r the r-th of its tiles.
struct Work { int head, i0, first, count; };      // `count` tiles of keys from tile `first` on
DEVICE bool next_work(Work& w, int round, const Sizes& n, Band band, int section) {
    const int blocks = (n.T + ROWS - 1) / ROWS, heads = n.B * n.H;
    const int place = round % 2 ? gridDim.x - 1 - blockIdx.x : blockIdx.x;
    const u64 index = (u64)round * gridDim.x + place;
    if (index >= (u64)blocks * heads) return false;
    const int first_head = index / ((u64)section * blocks) * section, in_section = min(section, heads - first_head);
    const int rest = index - (u64)first_head * blocks;
    w.head = first_head + rest % in_section;
    w.i0 = (blocks - 1 - rest / in_section) * ROWS;
    w.first = first_key(band, w.i0) / KEYS;
    w.count = max(0, (stop_key(band, w.i0 + ROWS - 1, n.S) + KEYS - 1) / KEYS - w.first);
    return true;
}

DEVICE void load_tile(u32 to, u32 panel, u32 bytes, const TensorMap* map, u32 barrier, int row, int head) {
    mbarrier_arrive_expect(barrier, PANELS * bytes);
#pragma unroll
    for (int c = 0; c < PANELS; c++) tma_load(to + c * panel, map, barrier, 64 * c, row, head);
}

// Grid: any number of blocks, block: THREADS. Maps: (heads, length, D), boxes (1, 64, 64) of q and out, (1, KEYS, 64)
// of k and v.
// *_in: the same arrays. section: so many heads, with all of their tiles, come before the next.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
attention_forward(const __grid_constant__ TensorMap q_map, const __grid_constant__ TensorMap k_map,
                  const __grid_constant__ TensorMap v_map, const __grid_constant__ TensorMap out_map, const TYPE* q_in,
                  const TYPE* k_in, const TYPE* v_in, Sizes n, Band band, int section, float score_scale, float* lse) {
    DYN_SMEM(memory);
    const u32 q = shared_address(memory), k = q + AT_K, v = q + AT_V;
    const u32 q_full = q + AT_BARRIERS, q_empty = q_full + 8 * CONSUMERS;                    // one for each warpgroup
    const u32 k_full = q_empty + 8 * CONSUMERS, v_full = k_full + 8 * STAGES;                // one for each stage
    const u32 k_empty = v_full + 8 * STAGES, v_empty = k_empty + 8 * STAGES;
    const int warpgroup = threadIdx.x / 128, lane = threadIdx.x % 32, group = n.H / n.HKV;

    if (threadIdx.x == 0) {
        for (int w = 0; w < CONSUMERS; w++) {
            mbarrier_init(q_full + 8 * w, 1);
            mbarrier_init(q_empty + 8 * w, 1);
        }
        for (int s = 0; s < STAGES; s++) {
            mbarrier_init(k_full + 8 * s, 1);
            mbarrier_init(v_full + 8 * s, 1);
            mbarrier_init(k_empty + 8 * s, WARPS);
            mbarrier_init(v_empty + 8 * s, WARPS);
        }
        mbarrier_init_fence();
    }
    __syncthreads();

    Work work;
    u32 turn = 0;                                                        // tiles of keys so far: stage and parity
    if (warpgroup == CONSUMERS) {                                        // ---- producer
        registers_decrease<CONSUMERS == 3 ? 32 : 24>();
        if (threadIdx.x != CONSUMERS * 128) return;
        for (int round = 0; next_work(work, round, n, band, section); round++) {
            auto load_k = [&](int tile, u32 t) {
                mbarrier_wait(k_empty + t % STAGES * 8, t / STAGES & 1 ^ 1);
                load_tile(k + t % STAGES * KV_BYTES, KV_PANEL, KV_PANEL, &k_map, k_full + t % STAGES * 8, tile * KEYS,
                          work.head / group);
            };
            if (work.count) load_k(work.first + work.count - 1, turn);   // before Q, whose room is free later
            for (int w = 0; w < CONSUMERS; w++) {
                mbarrier_wait(q_empty + 8 * w, round & 1 ^ 1);
                load_tile(q + w * 64 * 128, Q_PANEL, 64 * 128, &q_map, q_full + 8 * w, work.i0 + 64 * w, work.head);
            }
            for (int tile = work.first + work.count - 1; tile >= work.first; tile--, turn++) {   // backwards
                if (tile > work.first) load_k(tile - 1, turn + 1);
                mbarrier_wait(v_empty + turn % STAGES * 8, turn / STAGES & 1 ^ 1);
                load_tile(v + turn % STAGES * KV_BYTES, KV_PANEL, KV_PANEL, &v_map, v_full + turn % STAGES * 8,
                          tile * KEYS, work.head / group);
            }
        }
        return;
    }

    registers_increase<CONSUMERS == 3 ? 160 : 240>();                    // ---- consumers
    const int thread = threadIdx.x % 128, row = thread / 32 * 16 + lane / 4, column = lane % 4 * 2;
    const u32 my_q = q + warpgroup * 64 * 128;
    const float scale = score_scale * LOG2_E;
    if (warpgroup == CONSUMERS - 1) named_barrier_arrive(TURN, 256);     // the first turn is warpgroup 0's
    for (int round = 0; next_work(work, round, n, band, section); round++) {
        const int my_i0 = work.i0 + 64 * warpgroup;
        float o[HEAD_DIM / 2], s[KEYS / 2], factor[2];
        u32 weights[KEYS / 16][4];
        Rows rows;
#pragma unroll
        for (int e = 0; e < HEAD_DIM / 2; e++) o[e] = 0;
        auto soften = [&](int tile) {                                    // s: scores, then weights; true: scale o
            const int j0 = (work.first + tile) * KEYS;
            const bool cut = !sees_all<KEYS>(band, my_i0, j0, n.S);
            if (cut) mask_scores(s, band, my_i0 + row, j0 + column, n.S);
            return SOFTMAX_STEP(s, rows, factor, scale, cut);
        };

        mbarrier_wait(q_full + 8 * warpgroup, round & 1);
        if (work.count) {
            int tile = work.count - 1;                                   // from the last to the first, 0
            mbarrier_wait(k_full + turn % STAGES * 8, turn / STAGES & 1);
            wgmma_fence();
            multiply_scores(s, my_q, Q_PANEL, k + turn % STAGES * KV_BYTES, KV_PANEL);
            wgmma_commit();
            wgmma_wait<0>();
            if (lane == 0) mbarrier_arrive(k_empty + turn % STAGES * 8);
            soften(tile);
            pack_fragments(weights, s);

            for (tile--; tile >= 0; tile--, turn++) {                    // V of the tile before, K of this tile
                const u32 next = turn + 1;
                mbarrier_wait(k_full + next % STAGES * 8, next / STAGES & 1);
                mbarrier_wait(v_full + turn % STAGES * 8, turn / STAGES & 1);
                named_barrier_sync(TURN + warpgroup, 256);
                wgmma_fence();
                multiply_scores(s, my_q, Q_PANEL, k + next % STAGES * KV_BYTES, KV_PANEL);
                wgmma_commit();
                multiply_add(o, weights, v + turn % STAGES * KV_BYTES, KV_PANEL);
                wgmma_commit();
                named_barrier_arrive(TURN + (warpgroup + 1) % CONSUMERS, 256);
                wgmma_wait<1>();
                if (lane == 0) mbarrier_arrive(k_empty + next % STAGES * 8);
                const bool rescale = soften(tile);                       // while P V runs
                wgmma_wait<0>();
                if (lane == 0) mbarrier_arrive(v_empty + turn % STAGES * 8);
                if (rescale) scale_rows(o, factor);
                pack_fragments(weights, s);
            }
            mbarrier_wait(v_full + turn % STAGES * 8, turn / STAGES & 1);
            wgmma_fence();
            multiply_add(o, weights, v + turn % STAGES * KV_BYTES, KV_PANEL);
            wgmma_commit();
            wgmma_wait<0>();
            if (lane == 0) mbarrier_arrive(v_empty + turn % STAGES * 8);
            turn++;
        }

        float inverse[2], row_lse[2];
        finish_rows(rows, scale, inverse, row_lse);
        scale_rows(o, inverse);
        if (!any_not_finite(o)) {
            store_rows(o, 1, my_q, Q_PANEL, row, column);                // its products are done with Q
        } else {                                                         // NaN or infinity among the inputs
            for (int r = 0; r < 16; r++) {
                const int in_tile = thread / 32 * 16 + r, i = my_i0 + in_tile;
                if (i >= n.T) break;
                float l;
                store_row(exact_output({q_in, k_in, v_in}, n, band, work.head, i, scale, l), my_q, Q_PANEL, in_tile);
                if (row == in_tile) row_lse[0] = l;
                if (row + 8 == in_tile) row_lse[1] = l;
            }
        }
        fence_async_proxy();
        named_barrier_sync(MINE + warpgroup, 128);
        if (thread == 0) {
            for (int c = 0; c < PANELS; c++) tma_store(&out_map, my_q + c * Q_PANEL, 64 * c, my_i0, work.head);
            bulk_commit();
            bulk_wait_read<0>();
            mbarrier_arrive(q_empty + 8 * warpgroup);
        }
#pragma unroll
        for (int h = 0; h < 2; h++)
            if (column == 0 && my_i0 + row + 8 * h < n.T) lse[(u64)work.head * n.T + my_i0 + row + 8 * h] = row_lse[h];
    }
}

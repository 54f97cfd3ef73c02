// Attention forward on tensor cores (sm_80 and later). Rung 3: rung 2 tuned; what ships from sm_80 on, Hopper aside.
//
// Formula, shapes and conditions as in rung 2 (cuda_2_tensor_cores.cu). What is new, and what it is good for:
//
//   128 queries a block        a tile of keys and values is fetched for twice as many. For D = 64 a warp takes two
//                              strips of 16 queries, so that a fragment of k or v read from shared memory is used
//                              twice; for D = 128 the sums of two strips do not fit into the registers: 8 warps
//   q in registers             read once. Its way there is the memory of the stages, which are not in use yet, so that
//                              more blocks fit on a multiprocessor: one's softmax hides behind another's mma
//   two stages of k and v      tile n + 1 travels during all the work on tile n; one barrier a tile instead of two
//   keys backwards             the tiles that the mask cuts come first, with code of their own; the others ask nothing
//   tiles nobody sees          are left out by the warp
//   heavy blocks first         with causal the last queries see most keys: they start first, so that no long block is
//                              left over at the end. Heads go in groups whose keys and values fit into the L2 cache
//   2^(a s - a top)            the scale, log2 e and the shift are one multiply-add a score
//   out through shared memory  in rows of 16 bytes
//
// Expected on an H200 330-370 TFLOP/s (D 128); not yet measured.
//
// grid B * H * ceil(T / 128), block 128 (D = 64) or 256 (D = 128), shared memory 4 * 64 * D * 2 bytes.
#include "tiles.cuh"

constexpr int STRIPS = D == 64 ? 2 : 1, ROWS = 16 * STRIPS, QUERIES = 128, KEYS = 64;
constexpr int WARPS = QUERIES / ROWS, THREADS = 32 * WARPS;
constexpr int TILE = KEYS * D * 2, STAGE = 2 * TILE;     // bytes of keys, or of values; of both

struct Softmax { float top[STRIPS][2], total[STRIPS][2]; };   // of the rows g, g + 8 of each strip

// All of one tile of keys and values: scores, softmax, values. MASKED: some pair of query and key is not seen.
template <bool MASKED>
DEVICE void attend(float (&sum)[STRIPS][D / 8][4], Softmax& state, const u32 (&q)[STRIPS][D / 16][4], Tile<D> k,
                   Tile<D> v, int row, int j0, Band band, int S, float to_log2) {
    float s[STRIPS][KEYS / 8][4] = {};
#pragma unroll
    for (int d = 0; d < D; d += 16)
#pragma unroll
        for (int j = 0; j < KEYS; j += 16) {
            u32 b[4];
            operand_b_transposed(b, k, d, j);
#pragma unroll
            for (int m = 0; m < STRIPS; m++) multiply_add<false>(s[m][j / 8], s[m][j / 8 + 1], q[m][d / 16], b);
        }
#pragma unroll
    for (int m = 0; m < STRIPS; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int i = row + 16 * m + 8 * h;
            float largest = state.top[m][h];
#pragma unroll
            for (int c = 0; c < KEYS / 8; c++)
#pragma unroll
                for (int e = 2 * h; e < 2 * h + 2; e++) {
                    int j = j0 + 8 * c + threadIdx.x % 4 * 2 + e % 2;
                    if (MASKED && (j >= S || !sees(band, i, j))) s[m][c][e] = -INFINITY;
                    largest = fmaxf(largest, s[m][c][e]);
                }
            largest = row_max(largest);
            float shift = MASKED && largest == -INFINITY ? 0.0f : largest, from = shift * to_log2;
            float shrink = exp2_approx((state.top[m][h] - shift) * to_log2), part = 0.0f;
            if (__any_sync(0xffffffffu, fabsf(from) > 4096.0f)) {  // rounding `from` would cost digits: subtract first
#pragma unroll
                for (int c = 0; c < KEYS / 8; c++) s[m][c][2 * h] -= shift, s[m][c][2 * h + 1] -= shift;
                from = 0.0f;
            }
#pragma unroll
            for (int c = 0; c < KEYS / 8; c++)
#pragma unroll
                for (int e = 2 * h; e < 2 * h + 2; e++) part += s[m][c][e] = exp2_approx(s[m][c][e] * to_log2 - from);
            state.total[m][h] = state.total[m][h] * shrink + part;
            state.top[m][h] = largest;
#pragma unroll
            for (int c = 0; c < D / 8; c++) sum[m][c][2 * h] *= shrink, sum[m][c][2 * h + 1] *= shrink;
        }
#pragma unroll
    for (int j = 0; j < KEYS; j += 16) {
        u32 p[STRIPS][4];
#pragma unroll
        for (int m = 0; m < STRIPS; m++) as_operand(p[m], s[m][j / 8], s[m][j / 8 + 1]);
#pragma unroll
        for (int d = 0; d < D; d += 16) {
            u32 b[4];
            operand_b(b, v, j, d);
            u32 odd[4] = {};
            if (MASKED) take_not_finite(odd, b);
#pragma unroll
            for (int m = 0; m < STRIPS; m++) {
                if (MASKED) keep_apart(sum[m][d / 8], sum[m][d / 8 + 1], p[m], odd);
                multiply_add<false>(sum[m][d / 8], sum[m][d / 8 + 1], p[m], b);
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) attention_forward(const TYPE* q, const TYPE* k, const TYPE* v,
                                                                        Sizes n, Band band, float scale,
                                                                        int heads_at_once, TYPE* out, float* lse) {
    DYN_SMEM(memory);
    const u32 base = shared_address(memory);
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;

    // Which head and which queries: of heads_at_once heads, all last blocks of queries, then all last but one, ...
    int blocks = (n.T + QUERIES - 1) / QUERIES, group = blockIdx.x / (heads_at_once * blocks) * heads_at_once;
    int members = min(heads_at_once, n.B * n.H - group), place = blockIdx.x - group * blocks;
    int head = group + place % members, b = head / n.H, h = head % n.H;
    int i0 = (blocks - 1 - place / members) * QUERIES, i1 = min(i0 + QUERIES, n.T) - 1;
    u64 start = (u64)head * n.T * D, kv = (u64)(b * n.HKV + h / (n.H / n.HKV)) * n.S * D;

    const Tile<D> q_tile{base};
    load_rows<QUERIES, THREADS>(q_tile, q + start, i0, n.T);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    u32 q_rows[STRIPS][D / 16][4];
#pragma unroll
    for (int m = 0; m < STRIPS; m++)
#pragma unroll
        for (int d = 0; d < D; d += 16) operand_a(q_rows[m][d / 16], q_tile, ROWS * warp + 16 * m, d);
    __syncthreads();                                     // all have read it: its memory becomes the stages

    int first = first_key(band, i0) / KEYS * KEYS, tiles = (stop_key(band, i1, n.S) - first + KEYS - 1) / KEYS;
    auto load = [&](int tile) {
        u32 stage = base + tile % 2 * STAGE;
        load_rows<KEYS, THREADS>(Tile<D>{stage}, k + kv, first + tile * KEYS, n.S);
        load_rows<KEYS, THREADS>(Tile<D>{stage + TILE}, v + kv, first + tile * KEYS, n.S);
        cp_async_commit();
    };
    int w0 = i0 + ROWS * warp, w1 = w0 + ROWS - 1, row = w0 + lane / 4;   // this warp's queries, this lane's first
    float sum[STRIPS][D / 8][4] = {};
    Softmax state;
#pragma unroll
    for (int m = 0; m < STRIPS; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) state.top[m][h] = -INFINITY, state.total[m][h] = 0.0f;
    if (tiles > 0) load(tiles - 1);
    for (int tile = tiles - 1; tile >= 0; tile--) {
        cp_async_wait<0>();
        __syncthreads();                                 // this tile is here, and nobody reads the other stage
        if (tile > 0) load(tile - 1);
        int j0 = first + tile * KEYS, j1 = j0 + KEYS - 1;
        if (j0 >= stop_key(band, w1, n.S) || j1 < first_key(band, w0)) continue;
        const Tile<D> k_tile{base + tile % 2 * STAGE}, v_tile{k_tile.base + TILE};
        bool masked = j1 >= n.S || !sees_all(band, w0, w1, j0, j1);
        if (masked) attend<true>(sum, state, q_rows, k_tile, v_tile, row, j0, band, n.S, scale * LOG2E);
        else attend<false>(sum, state, q_rows, k_tile, v_tile, row, j0, band, n.S, scale * LOG2E);
    }

    __syncthreads();                                     // nobody reads a tile any more: out takes their place
#pragma unroll
    for (int m = 0; m < STRIPS; m++) {
        float inverse[2];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int i = row + 16 * m + 8 * h;
            float all = row_sum(state.total[m][h]);
            inverse[h] = all == 0.0f ? 0.0f : 1.0f / all;
            if (lane % 4 == 0 && i < n.T)
                lse[(u64)head * n.T + i] = all == 0.0f ? -INFINITY : __fmul_rn(state.top[m][h], scale) + logf(all);
        }
        store_rows(out + start, w0 + 16 * m, n.T, memory + (ROWS * warp + 16 * m) * D * 2, sum[m], inverse);
    }
}

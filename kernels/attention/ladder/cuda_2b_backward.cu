// Attention backward on tensor cores (sm_80 and later). Rung 2b. Formulas, with P recomputed from lse, never stored:
//
//     P = exp(scale Q K^T - lse)     delta_i = dout_i . out_i     dS = P * (dO V^T - delta)
//     dV = P^T dO                    dK = scale dS^T Q            dQ = scale dS K
//
// Shapes and conditions as in rung 2 (cuda_2_tensor_cores.cu); delta (B, H, T) and dq_sum (B, H, T, D) of float.
//
// attention_backward_kv: a block owns KEYS keys of one kv head, 16 a warp, and walks over the queries of all heads that
// read them. S and dP are computed transposed, keys as rows: then P^T and dS^T lie in the registers as the first
// operands of dV += P^T dO and dK += dS^T Q, whose sums stay in registers from the first query to the last. Only dQ has
// its sum elsewhere, one row for each query: dS^T goes through shared memory once, is read back turned, and what the
// block's keys add to dQ is added to dq_sum in memory by atomics. These come in any order, so dQ differs by roundings
// from run to run. Queries come in two stages by cp.async, as keys do in rung 3. 5 products a tile: 2.5 times the work
// of the forward pass.
//
// With -DDETERMINISTIC=1 it leaves dQ out, and attention_backward_q computes it as the forward pass computes out: a
// block owns 64 queries and walks over the keys. The same bits on every run, for 7 products instead of 5.
//
// Expected on an H200 180-270 TFLOP/s; not yet measured.
//
// attention_delta comes first; attention_round_dq rounds dq_sum last. Launches: cuda.py, or at each kernel.
#include "tiles.cuh"

#ifndef DETERMINISTIC
#define DETERMINISTIC 0
#endif
#ifndef WARPS
#define WARPS 8                          // 4, with QUERIES 32, where a block has less than 144 KB of shared memory
#endif
#ifndef QUERIES
#define QUERIES 64
#endif

// p, and 0 for what is not seen: exp(scale s - lse). Not scale s - lse in one operation: lse was rounded like scale s,
// so that the difference of large numbers is exact.
DEVICE float probability(float s, float scale, float lse) { return exp2_approx((__fmul_rn(s, scale) - lse) * LOG2E); }

// grid ceil(rows / ROWS), block 256: D / 8 lanes a row.
extern "C" __global__ void attention_delta(const TYPE* dout, const TYPE* out, float* delta, int rows) {
    constexpr int LANES = D / 8, ROWS = 256 / LANES;
    int lane = threadIdx.x % LANES, row = blockIdx.x * ROWS + threadIdx.x / LANES;
    float sum = 0.0f;
    if (row < rows) {
        Pack<TYPE> x = load16(dout + (u64)row * D + 8 * lane), y = load16(out + (u64)row * D + 8 * lane);
#pragma unroll
        for (int e = 0; e < 8; e++) sum += to_float(x.x[e]) * to_float(y.x[e]);
    }
#pragma unroll
    for (int step = LANES / 2; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    if (lane == 0 && row < rows) delta[row] = sum;
}

// grid ceil(packs / 256), block 256: 8 numbers a thread.
extern "C" __global__ void attention_round_dq(const float* dq_sum, TYPE* dq, u64 packs) {
    u64 at = blockIdx.x * 256ull + threadIdx.x;
    if (at >= packs) return;
    Pack<float> low = load16(dq_sum + 8 * at), high = load16(dq_sum + 8 * at + 4);
    Pack<TYPE> x;
#pragma unroll
    for (int e = 0; e < 8; e++) x.x[e] = from_float<TYPE>(e < 4 ? low.x[e] : high.x[e - 4]);
    store16(dq + 8 * at, x);
}

// ---- dK and dV ----------------------------------------------------------------------------------------------------
constexpr int THREADS = 32 * WARPS, KEYS = 16 * WARPS;
constexpr int QUERY_BYTES = QUERIES * D * 2, KEY_BYTES = KEYS * D * 2;

// Shared memory: K, V; two stages of Q and dO; dS^T; two stages of lse and delta.
constexpr int AT_V = KEY_BYTES, AT_QUERIES = 2 * KEY_BYTES, AT_DS = AT_QUERIES + 4 * QUERY_BYTES,
              AT_STATISTICS = AT_DS + KEYS * QUERIES * 2;
struct Stage { Tile<D> q, dout; float *lse, *delta; };
DEVICE Stage stage_of(u8* memory, int step) {
    u32 base = shared_address(memory) + AT_QUERIES + step % 2 * 2 * QUERY_BYTES;
    float* statistics = (float*)(memory + AT_STATISTICS) + step % 2 * 2 * QUERIES;
    return {{base}, {base + QUERY_BYTES}, statistics, statistics + QUERIES};
}

// c (16 x QUERIES) += rows 16 warp.. of x (KEYS x D), times y^T (D x QUERIES).
DEVICE void scores(float (&c)[QUERIES / 8][4], Tile<D> x, Tile<D> y) {
#pragma unroll 2                         // all of it would need more registers than there are
    for (int d = 0; d < D; d += 16) {
        u32 a[4], b[4];
        operand_a(a, x, threadIdx.x / 32 * 16, d);
#pragma unroll
        for (int i = 0; i < QUERIES; i += 16) {
            operand_b_transposed(b, y, d, i);
            multiply_add<false>(c[i / 8], c[i / 8 + 1], a, b);
        }
    }
}

// sum (16 x D) += c (16 x QUERIES) times x (QUERIES x D).
template <bool MASKED> DEVICE void add_rows(float (&sum)[D / 8][4], const float (&c)[QUERIES / 8][4], Tile<D> x) {
#pragma unroll
    for (int i = 0; i < QUERIES; i += 16) {
        u32 a[4], b[4];
        as_operand(a, c[i / 8], c[i / 8 + 1]);
#pragma unroll
        for (int d = 0; d < D; d += 16) {
            operand_b(b, x, i, d);
            multiply_add<MASKED>(sum[d / 8], sum[d / 8 + 1], a, b);
        }
    }
}

// dq_sum rows i0.. += scale dS K. A warp takes 16 queries and a part of the columns.
template <bool MASKED> DEVICE void add_to_dq(float* dq_sum, Tile<D> k, Tile<QUERIES> ds, int i0, int T, float scale) {
    constexpr int STRIPS = QUERIES / 16, COLUMNS = D / (WARPS / STRIPS);
    static_assert(WARPS % STRIPS == 0, "");
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, strip = warp % STRIPS * 16, column = warp / STRIPS * COLUMNS;
    float sum[COLUMNS / 8][4] = {};
#pragma unroll
    for (int j = 0; j < KEYS; j += 16) {
        u32 a[4], b[4];
        operand_a_transposed(a, ds, strip, j);
#pragma unroll
        for (int d = 0; d < COLUMNS; d += 16) {
            operand_b(b, k, j, column + d);
            multiply_add<MASKED>(sum[d / 8], sum[d / 8 + 1], a, b);
        }
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int i = i0 + strip + lane / 4 + 8 * h;
        if (i >= T) continue;
        float* to = dq_sum + (u64)i * D + column + lane % 4 * 2;
#pragma unroll
        for (int c = 0; c < COLUMNS / 8; c++)
#pragma unroll
            for (int e = 0; e < 2; e++) atomicAdd(to + 8 * c + e, scale * sum[c][2 * h + e]);
    }
}

// All of one tile of queries. MASKED: some pair of query and key is not seen.
template <bool MASKED>
DEVICE void walk(float (&dk)[D / 8][4], float (&dv)[D / 8][4], u8* memory, Stage queries, int i0, int j0, Sizes n,
                  Band band, float scale, float* dq_sum) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const u32 base = shared_address(memory);
    const Tile<D> k{base}, v{base + AT_V};
    float p[QUERIES / 8][4] = {}, dp[QUERIES / 8][4] = {};   // transposed: rows are keys
    scores(p, k, queries.q);
#pragma unroll
    for (int c = 0; c < QUERIES / 8; c++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            int column = 8 * c + lane % 4 * 2 + e % 2, i = i0 + column, j = j0 + 16 * warp + lane / 4 + e / 2 * 8;
            bool hidden = MASKED && (j >= n.S || i >= n.T || !sees(band, i, j));
            p[c][e] = hidden ? 0.0f : probability(p[c][e], scale, queries.lse[column]);
        }
    add_rows<MASKED>(dv, p, queries.dout);
    scores(dp, v, queries.dout);
#pragma unroll
    for (int c = 0; c < QUERIES / 8; c++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
            float ds = p[c][e] * (dp[c][e] - queries.delta[8 * c + lane % 4 * 2 + e % 2]);
            dp[c][e] = MASKED && p[c][e] == 0.0f ? 0.0f : ds;
        }
        if (!DETERMINISTIC)
#pragma unroll
            for (int h = 0; h < 2; h++)
                *(u32*)(memory + at(Tile<QUERIES>{AT_DS}, 16 * warp + lane / 4 + 8 * h, c) + lane % 4 * 4) =
                    pack2<TYPE>(dp[c][2 * h], dp[c][2 * h + 1]);
    }
    add_rows<MASKED>(dk, dp, queries.q);
    if (DETERMINISTIC) return;
    __syncthreads();                                     // dS of all keys is there
    add_to_dq<MASKED>(dq_sum, k, Tile<QUERIES>{base + AT_DS}, i0, n.T, scale);
}

// grid B * HKV * ceil(S / KEYS), block THREADS,
// shared memory (2 * KEYS + 4 * QUERIES) * D * 2 + KEYS * QUERIES * 2 + 16 * QUERIES bytes.
extern "C" __global__ void __launch_bounds__(THREADS) attention_backward_kv(
    const TYPE* dout, const TYPE* q, const TYPE* k, const TYPE* v, const float* lse, const float* delta, Sizes n,
    Band band, float scale, float* dq_sum, TYPE* dk, TYPE* dv) {
    DYN_SMEM(memory);
    const u32 base = shared_address(memory);
    int warp = threadIdx.x / 32, group = n.H / n.HKV;
    int blocks = (n.S + KEYS - 1) / KEYS, head = blockIdx.x / blocks;
    int j0 = blockIdx.x % blocks * KEYS, j1 = min(j0 + KEYS, n.S) - 1;
    u64 kv = (u64)head * n.S * D;

    int first = first_query(band, j0) / QUERIES * QUERIES;
    int steps = max(0, (stop_query(band, j1, n.T) - first + QUERIES - 1) / QUERIES), all = steps * group;
    auto load = [&](int step) {                          // of all query heads that read this kv head, one after another
        int i0 = first + step % steps * QUERIES, i = i0 + threadIdx.x;
        u64 rows = (u64)(head * group + step / steps) * n.T;
        Stage stage = stage_of(memory, step);
        load_rows<QUERIES, THREADS>(stage.q, q + rows * D, i0, n.T);
        load_rows<QUERIES, THREADS>(stage.dout, dout + rows * D, i0, n.T);
        cp_async_commit();
        if (threadIdx.x < QUERIES) {
            stage.lse[threadIdx.x] = i < n.T ? lse[rows + i] : 0.0f;
            stage.delta[threadIdx.x] = i < n.T ? delta[rows + i] : 0.0f;
        }
    };
    float dk_sum[D / 8][4] = {}, dv_sum[D / 8][4] = {};
    load_rows<KEYS, THREADS>(Tile<D>{base}, k + kv, j0, n.S);
    load_rows<KEYS, THREADS>(Tile<D>{base + AT_V}, v + kv, j0, n.S);
    if (all > 0) load(0);
    for (int step = 0; step < all; step++) {
        cp_async_wait<0>();
        __syncthreads();                                 // the tile is here; nobody reads the other stage, nor dS
        if (step + 1 < all) load(step + 1);
        int i0 = first + step % steps * QUERIES;
        float* dq_rows = dq_sum + (u64)(head * group + step / steps) * n.T * D;
        bool masked = i0 + QUERIES > n.T || j0 + KEYS > n.S ||
                      !sees_all(band, i0, i0 + QUERIES - 1, j0, j0 + KEYS - 1);
        Stage stage = stage_of(memory, step);
        if (masked) walk<true>(dk_sum, dv_sum, memory, stage, i0, j0, n, band, scale, dq_rows);
        else walk<false>(dk_sum, dv_sum, memory, stage, i0, j0, n, band, scale, dq_rows);
    }
    cp_async_wait<0>();
    __syncthreads();                                     // nobody reads a tile any more: the results pass through
    const float by_scale[2] = {scale, scale}, by_one[2] = {1.0f, 1.0f};
    store_rows(dk + kv, j0 + 16 * warp, n.S, memory + 16 * warp * D * 2, dk_sum, by_scale);
    store_rows(dv + kv, j0 + 16 * warp, n.S, memory + AT_V + 16 * warp * D * 2, dv_sum, by_one);
}

// ---- dQ, without atomics ------------------------------------------------------------------------------------------
// grid B * H * ceil(T / 64), block 128, shared memory 6 * 64 * D * 2 bytes.
extern "C" __global__ void __launch_bounds__(128) attention_backward_q(
    const TYPE* dout, const TYPE* q, const TYPE* k, const TYPE* v, const float* lse, const float* delta, Sizes n,
    Band band, float scale, TYPE* dq) {
    constexpr int ROWS = 64, BYTES = ROWS * D * 2;       // as many queries in a block as keys in a tile
    DYN_SMEM(memory);
    const u32 base = shared_address(memory);
    const Tile<D> q_tile{base}, dout_tile{base + BYTES};
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int blocks = (n.T + ROWS - 1) / ROWS, head = blockIdx.x / blocks, b = head / n.H, h = head % n.H;
    int i0 = blockIdx.x % blocks * ROWS, i1 = min(i0 + ROWS, n.T) - 1, row = i0 + 16 * warp + lane / 4;
    u64 start = (u64)head * n.T * D, kv = (u64)(b * n.HKV + h / (n.H / n.HKV)) * n.S * D;
    float lse_row[2], delta_row[2];
#pragma unroll
    for (int e = 0; e < 2; e++) {
        u64 at_row = (u64)head * n.T + row + 8 * e;
        lse_row[e] = row + 8 * e < n.T ? lse[at_row] : 0.0f;
        delta_row[e] = row + 8 * e < n.T ? delta[at_row] : 0.0f;
    }

    int first = first_key(band, i0) / ROWS * ROWS, steps = (stop_key(band, i1, n.S) - first + ROWS - 1) / ROWS;
    auto load = [&](int step) {
        u32 stage = base + (2 + step % 2 * 2) * BYTES;
        load_rows<ROWS, 128>(Tile<D>{stage}, k + kv, first + step * ROWS, n.S);
        load_rows<ROWS, 128>(Tile<D>{stage + BYTES}, v + kv, first + step * ROWS, n.S);
        cp_async_commit();
    };
    float sum[D / 8][4] = {};
    load_rows<ROWS, 128>(q_tile, q + start, i0, n.T);
    load_rows<ROWS, 128>(dout_tile, dout + start, i0, n.T);
    if (steps > 0) load(0);
    for (int step = 0; step < steps; step++) {
        cp_async_wait<0>();
        __syncthreads();                                 // the tile is here, and nobody reads the other stage
        if (step + 1 < steps) load(step + 1);
        const Tile<D> k_tile{base + (2 + step % 2 * 2) * BYTES}, v_tile{k_tile.base + BYTES};
        float p[ROWS / 8][4] = {}, ds[ROWS / 8][4] = {};
#pragma unroll
        for (int d = 0; d < D; d += 16) {
            u32 of_q[4], of_dout[4], b[4];
            operand_a(of_q, q_tile, 16 * warp, d);
            operand_a(of_dout, dout_tile, 16 * warp, d);
#pragma unroll
            for (int j = 0; j < ROWS; j += 16) {
                operand_b_transposed(b, k_tile, d, j);
                multiply_add<false>(p[j / 8], p[j / 8 + 1], of_q, b);
                operand_b_transposed(b, v_tile, d, j);
                multiply_add<false>(ds[j / 8], ds[j / 8 + 1], of_dout, b);
            }
        }
        int j0 = first + step * ROWS;
        bool masked = j0 + ROWS > n.S || !sees_all(band, i0, i0 + ROWS - 1, j0, j0 + ROWS - 1);
#pragma unroll
        for (int c = 0; c < ROWS / 8; c++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                int i = row + e / 2 * 8, j = j0 + 8 * c + lane % 4 * 2 + e % 2;
                bool hidden = masked && (j >= n.S || !sees(band, i, j));
                float weight = hidden ? 0.0f : probability(p[c][e], scale, lse_row[e / 2]);
                ds[c][e] = hidden ? 0.0f : weight * (ds[c][e] - delta_row[e / 2]);
            }
#pragma unroll
        for (int j = 0; j < ROWS; j += 16) {
            u32 a[4], b[4];
            as_operand(a, ds[j / 8], ds[j / 8 + 1]);
#pragma unroll
            for (int d = 0; d < D; d += 16) {
                operand_b(b, k_tile, j, d);
                if (masked) multiply_add<true>(sum[d / 8], sum[d / 8 + 1], a, b);
                else multiply_add<false>(sum[d / 8], sum[d / 8 + 1], a, b);
            }
        }
    }
    cp_async_wait<0>();
    __syncthreads();
    const float by_scale[2] = {scale, scale};
    store_rows(dq + start, i0 + 16 * warp, n.T, memory + 16 * warp * D * 2, sum, by_scale);
}

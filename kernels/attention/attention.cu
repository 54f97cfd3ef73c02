// Attention, forward and backward, float32: the first CUDA kernel, to learn from. Formulas in reference.py.
//
//     s_ij = scale q_i . k_j + bias_ij      p_ij = exp(s_ij - lse_i)      out_i = sum_j p_ij v_j
//
// Threads: a block is WARPS warps, a warp owns one row (a query; in attention_backward_kv a key). The other side comes
// in tiles of 32 rows, shared by the block. Within a tile each lane first takes one of the 32 rows and computes its
// score alone (a dot product over the channels); then it takes the channels lane, lane + 32, ... of the result and adds
// up the 32 rows. So a score needs no reduction, and a sum over channels crosses lanes only through shared memory.
// The scores are never in memory. Forward rescales its sums whenever the largest score grows (online softmax).
// No atomics: dq has one owner per query, dk and dv one per key, so that results repeat to the bit.
//
// Arrays are contiguous: q (B, H, T, D), k and v (B, HKV, S, D), lse (B, H, T); bias has any strides, or is null.
// D is fixed when compiled:   nvcc -std=c++17 -arch=sm_80 -DHEAD_DIM=64 -DWARPS=8 -c attention.cu   (or NVRTC)
#ifndef HEAD_DIM
#define HEAD_DIM 64
#endif
#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif
#ifndef WARPS
#define WARPS 4                         // rows per block: 8 fit into 48 KB of shared memory up to HEAD_DIM 240
#endif
#define CHANNELS ((HEAD_DIM + 31) / 32) // channels per lane

struct Bias { const float* data; long long b, h, i, j; };        // strides in elements
struct Sizes { int B, H, HKV, T, S; };
struct Mask { int causal; long long offset, window; };           // window 0: none

typedef float Tile[32][HEAD_DIM | 1];   // odd, so that 32 lanes reading a column hit 32 banks

__device__ bool sees(Mask m, int i, int j) {
    return !(m.causal && j > i + m.offset) && !(m.window && j <= i + m.offset - m.window);
}

// The keys [first, stop) that some query of i0..i1 sees, and the queries that see some key of j0..j1.
__device__ int first_key(Mask m, int i0) { return m.window ? (int)max(0LL, i0 + m.offset - m.window + 1) : 0; }
__device__ int stop_key(Mask m, int i1, int S) { return m.causal ? (int)min((long long)S, i1 + m.offset + 1) : S; }
__device__ int first_query(Mask m, int j0) { return m.causal ? (int)max(0LL, j0 - m.offset) : 0; }
__device__ int stop_query(Mask m, int j1, int T) {
    return m.window ? (int)min((long long)T, j1 + m.window - m.offset) : T;
}

__device__ float bias_at(Bias a, int b, int h, int i, int j) {
    return a.data ? a.data[b * a.b + h * a.h + i * a.i + j * a.j] : 0.0f;
}

// The whole block: rows first..first + 31 of x (n, D) into the tile. The barriers keep earlier readers and later apart.
__device__ void load_tile(Tile& tile, const float* x, int first, int n) {
    __syncthreads();
    for (int e = threadIdx.x; e < 32 * HEAD_DIM; e += 32 * WARPS) {
        int r = e / HEAD_DIM, d = e % HEAD_DIM;
        if (first + r < n) tile[r][d] = x[(long long)(first + r) * HEAD_DIM + d];
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

__device__ float warp_max(float x) {
    for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}
__device__ float warp_sum(float x) {
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

// One warp per query: grid B * H * ceil(T / WARPS), block 32 * WARPS.
extern "C" __global__ void attention_forward(const float* q, const float* k, const float* v, Bias bias, Sizes n,
                                             Mask mask, float scale, float* out, float* lse) {
    __shared__ Tile tile;
    __shared__ float q_row[WARPS][HEAD_DIM], weights[WARPS][32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int blocks = (n.T + WARPS - 1) / WARPS, head = blockIdx.x / blocks, b = head / n.H, h = head % n.H;
    int i0 = blockIdx.x % blocks * WARPS, i = i0 + warp;
    long long row = (long long)head * n.T + i, kv = (long long)(b * n.HKV + h / (n.H / n.HKV)) * n.S * HEAD_DIM;
    if (i < n.T)
        for (int d = lane; d < HEAD_DIM; d += 32) q_row[warp][d] = q[row * HEAD_DIM + d];

    float top = -INFINITY, total = 0.0f, sum[CHANNELS] = {};
    int stop = stop_key(mask, min(i0 + WARPS, n.T) - 1, n.S);
    for (int j0 = first_key(mask, i0); j0 < stop; j0 += 32) {
        int j = j0 + lane;
        load_tile(tile, k + kv, j0, n.S);
        float s = -INFINITY, extra = 0.0f;
        if (i < n.T && j < n.S && sees(mask, i, j) && (extra = bias_at(bias, b, h, i, j)) != -INFINITY)
            s = scale * dot(q_row[warp], tile[lane]) + extra;
        float new_top = fmaxf(top, warp_max(s));
        float shift = new_top == -INFINITY ? 0.0f : new_top;  // nothing seen yet
        float p = expf(s - shift), rescale = expf(top - shift);
        total = total * rescale + warp_sum(p);
        top = new_top;
        weights[warp][lane] = p;
        for (int c = 0; c < CHANNELS; c++) sum[c] *= rescale;
        load_tile(tile, v + kv, j0, n.S);
        add_rows(sum, weights[warp], tile);
    }
    if (i >= n.T) return;
    for (int c = 0; c < CHANNELS; c++)
        if (lane + 32 * c < HEAD_DIM) out[row * HEAD_DIM + lane + 32 * c] = total == 0.0f ? 0.0f : sum[c] / total;
    if (lane == 0) lse[row] = total == 0.0f ? -INFINITY : top + logf(total);
}

// p_ij, and 0 where query i does not see key j. q_i and k_j are rows in shared memory.
__device__ float probability(const float* q_i, const float* k_j, float lse, float extra, float scale) {
    return extra == -INFINITY || lse == -INFINITY ? 0.0f : expf(scale * dot(q_i, k_j) + extra - lse);
}

// One warp per query, as in forward; delta (B, H, T) = dout . out per query, which the next kernel reads.
extern "C" __global__ void attention_backward_q(const float* dout, const float* q, const float* k, const float* v,
                                                const float* out, const float* lse, Bias bias, Sizes n, Mask mask,
                                                float scale, float* delta, float* dq) {
    __shared__ Tile tile;
    __shared__ float q_row[WARPS][HEAD_DIM], dout_row[WARPS][HEAD_DIM], weights[WARPS][32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int blocks = (n.T + WARPS - 1) / WARPS, head = blockIdx.x / blocks, b = head / n.H, h = head % n.H;
    int i0 = blockIdx.x % blocks * WARPS, i = i0 + warp;
    long long row = (long long)head * n.T + i, kv = (long long)(b * n.HKV + h / (n.H / n.HKV)) * n.S * HEAD_DIM;
    float part = 0.0f, sum[CHANNELS] = {};
    if (i < n.T)
        for (int d = lane; d < HEAD_DIM; d += 32) {
            q_row[warp][d] = q[row * HEAD_DIM + d];
            dout_row[warp][d] = dout[row * HEAD_DIM + d];
            part += dout_row[warp][d] * out[row * HEAD_DIM + d];
        }
    float delta_i = warp_sum(part), lse_i = i < n.T ? lse[row] : -INFINITY;

    int stop = stop_key(mask, min(i0 + WARPS, n.T) - 1, n.S);
    for (int j0 = first_key(mask, i0); j0 < stop; j0 += 32) {
        int j = j0 + lane;
        bool seen = i < n.T && j < n.S && sees(mask, i, j);
        load_tile(tile, v + kv, j0, n.S);
        float dp = dot(dout_row[warp], tile[lane]);
        load_tile(tile, k + kv, j0, n.S);
        float extra = seen ? bias_at(bias, b, h, i, j) : -INFINITY;
        float p = probability(q_row[warp], tile[lane], lse_i, extra, scale);
        weights[warp][lane] = p == 0.0f ? 0.0f : scale * p * (dp - delta_i);
        __syncwarp();
        add_rows(sum, weights[warp], tile);
    }
    if (i >= n.T) return;
    for (int c = 0; c < CHANNELS; c++)
        if (lane + 32 * c < HEAD_DIM) dq[row * HEAD_DIM + lane + 32 * c] = sum[c];
    if (lane == 0) delta[row] = delta_i;
}

// One warp per key: grid B * HKV * ceil(S / WARPS). Tiles of queries, of every head that reads this kv head.
extern "C" __global__ void attention_backward_kv(const float* dout, const float* q, const float* k, const float* v,
                                                 const float* lse, const float* delta, Bias bias, Sizes n, Mask mask,
                                                 float scale, float* dk, float* dv) {
    __shared__ Tile tile;
    __shared__ float k_row[WARPS][HEAD_DIM], v_row[WARPS][HEAD_DIM], weights[WARPS][32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = n.H / n.HKV;
    int blocks = (n.S + WARPS - 1) / WARPS, head = blockIdx.x / blocks, b = head / n.HKV;
    int j0 = blockIdx.x % blocks * WARPS, j = j0 + warp;
    long long row = (long long)head * n.S + j;
    if (j < n.S)
        for (int d = lane; d < HEAD_DIM; d += 32) {
            k_row[warp][d] = k[row * HEAD_DIM + d];
            v_row[warp][d] = v[row * HEAD_DIM + d];
        }

    float sum_k[CHANNELS] = {}, sum_v[CHANNELS] = {};
    int stop = stop_query(mask, min(j0 + WARPS, n.S) - 1, n.T);
    for (int h = head % n.HKV * group; h < (head % n.HKV + 1) * group; h++) {
        long long first = (long long)(b * n.H + h) * n.T;
        for (int i0 = first_query(mask, j0); i0 < stop; i0 += 32) {
            int i = i0 + lane;
            bool seen = i < n.T && j < n.S && sees(mask, i, j);
            load_tile(tile, q + first * HEAD_DIM, i0, n.T);
            float extra = seen ? bias_at(bias, b, h, i, j) : -INFINITY;
            float p = probability(tile[lane], k_row[warp], seen ? lse[first + i] : -INFINITY, extra, scale);
            weights[warp][lane] = p;
            load_tile(tile, dout + first * HEAD_DIM, i0, n.T);
            add_rows(sum_v, weights[warp], tile);
            float dp = dot(tile[lane], v_row[warp]);
            __syncwarp();  // all lanes have read p before ds takes its place
            weights[warp][lane] = p == 0.0f ? 0.0f : scale * p * (dp - delta[first + i]);
            load_tile(tile, q + first * HEAD_DIM, i0, n.T);  // again: one tile of shared memory is enough for D = 256
            add_rows(sum_k, weights[warp], tile);
        }
    }
    if (j >= n.S) return;
    for (int c = 0; c < CHANNELS; c++)
        if (lane + 32 * c < HEAD_DIM) {
            dk[row * HEAD_DIM + lane + 32 * c] = sum_k[c];
            dv[row * HEAD_DIM + lane + 32 * c] = sum_v[c];
        }
}

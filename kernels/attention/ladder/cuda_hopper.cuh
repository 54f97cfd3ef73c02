// What the Hopper rungs of attention share: which keys a query sees, the online softmax on accumulators, the scores.
//
// Accumulators lie as wgmma leaves them. Of a thread with g = lane / 4 and t = lane % 4, in warp w of its warpgroup:
// s[4 j + 2 h + e] is row 16 w + g + 8 h (h = 0, 1: the thread's two rows), column 8 j + 2 t + e. Four threads share a
// row.
#pragma once
#include "band.cuh"
#include "hopper.cuh"

#ifndef TYPE
#define TYPE bf16
#endif
#ifndef HEAD_DIM
#define HEAD_DIM 64
#endif

constexpr float LOG2_E = 1.44269504088896f, LN_2 = 0.693147180559945f;
constexpr int PANELS = HEAD_DIM / 64;            // a panel: 64 columns of a tile, rows of 128 bytes, swizzled

// 64 queries from i0, N keys from j0: does no query see any? does each see all? n_keys: there are no more.
template <int N> DEVICE bool sees_nothing(Band m, int i0, int j0, int n_keys) {
    return j0 > i0 + 63 + m.high || j0 + N - 1 < i0 + m.low || j0 >= n_keys;
}
template <int N> DEVICE bool sees_all(Band m, int i0, int j0, int n_keys) {
    return sees_all(m, i0, i0 + 63, j0, j0 + N - 1) && j0 + N <= n_keys;
}

// -inf where query i does not see key j. i, j: of s[0].
template <int R> DEVICE void mask_scores(float (&s)[R], Band m, int i, int j, int n_keys) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int lowest = i + 8 * h + m.low - j, highest = min(i + 8 * h + m.high, n_keys - 1) - j;
#pragma unroll
        for (int c = 0; c < R / 4; c++)
#pragma unroll
            for (int e = 0; e < 2; e++)
                if (8 * c + e < lowest || 8 * c + e > highest) s[4 * c + 2 * h + e] = -INFINITY;
    }
}

// S (64 x keys) = Q K^T over the channels: 16 a product. q, k: the first panel's rows; *_panel: bytes of a panel.
template <int R> DEVICE void multiply_scores(float (&s)[R], u32 q, u32 q_panel, u32 k, u32 k_panel) {
#pragma unroll
    for (int c = 0; c < HEAD_DIM / 16; c++)
        wgmma_ss<TYPE>(s, descriptor(q + c / 4 * q_panel + c % 4 * 32),
                       descriptor(k + c / 4 * k_panel + c % 4 * 32), c > 0);
}

// The accumulators as A operand of the next product: 16 columns a fragment.
template <int R> DEVICE void pack_fragments(u32 (&p)[R / 8][4], const float (&s)[R]) {
#pragma unroll
    for (int f = 0; f < R / 8; f++)
#pragma unroll
        for (int i = 0; i < 4; i++) p[f][i] = pack2<TYPE>(s[8 * f + 2 * i], s[8 * f + 2 * i + 1]);
}

// D (64 x channels) += P (64 x 16 F, fragments) B (16 F x channels). b: rows of B under each other.
template <int R, int F> DEVICE void multiply_add(float (&d)[R], const u32 (&p)[F][4], u32 b, u32 b_panel) {
#pragma unroll
    for (int f = 0; f < F; f++) wgmma_rs<TYPE, 1>(d, p[f], descriptor(b + f * 16 * 128, b_panel), true);
}

// Sum or maximum over the four threads of a row.
DEVICE float row_sum(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}
DEVICE float row_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

// The state of a thread's two rows: the largest score so far, and this thread's share of sum_j 2^((s_j - top) scale).
struct Rows { float top[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0}; };

// s becomes 2^((s - top) scale) for the new top; what was summed under the old top is then to be multiplied by factor.
// scale: that of the scores times log2(e), so that 2^x is enough, and multiply and subtract are one instruction.
// True: factor may differ from 1.
template <int R> DEVICE bool softmax_step(float (&s)[R], Rows& rows, float (&factor)[2], float scale, bool = true) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float top = rows.top[h], sum = 0;
#pragma unroll
        for (int j = 0; j < R / 4; j++) top = fmaxf(top, fmaxf(s[4 * j + 2 * h], s[4 * j + 2 * h + 1]));
        top = row_max(top);
        float shift = top == -INFINITY ? 0 : top * scale;   // nothing seen yet: 2^(-inf - 0) = 0
        factor[h] = exp2_approx(rows.top[h] * scale - shift);
        rows.top[h] = top;
#pragma unroll
        for (int j = 0; j < R / 4; j++)
#pragma unroll
            for (int e = 0; e < 2; e++) sum += s[4 * j + 2 * h + e] = exp2_approx(s[4 * j + 2 * h + e] * scale - shift);
        rows.total[h] = rows.total[h] * factor[h] + sum;
    }
    return true;
}
template <int R> DEVICE void scale_rows(float (&o)[R], const float (&factor)[2]) {
#pragma unroll
    for (int i = 0; i < R; i++) o[i] *= factor[i / 2 % 2];
}

// After the last key: 1 / total (0 where nothing was seen) and the log-sum-exp of each row.
DEVICE void finish_rows(const Rows& rows, float scale, float (&inverse)[2], float (&lse)[2]) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float total = row_sum(rows.total[h]);
        inverse[h] = total == 0 ? 0 : 1 / total;
        lse[h] = total == 0 ? -INFINITY : (rows.top[h] * scale + log2f(total)) * LN_2;
    }
}

// This thread's part of a result (64 x D), times factor and rounded, to shared memory: panels `panel` bytes apart.
DEVICE void store_rows(const float (&x)[HEAD_DIM / 2], float factor, u32 to, u32 panel, int row, int column) {
#pragma unroll
    for (int c = 0; c < HEAD_DIM / 8; c++)
#pragma unroll
        for (int h = 0; h < 2; h++)
            shared_store(swizzled_address(to + c / 8 * panel, row + 8 * h, (c % 8 * 8 + column) * 2),
                         pack2<TYPE>(x[4 * c + 2 * h] * factor, x[4 * c + 2 * h + 1] * factor));
}

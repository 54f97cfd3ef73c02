// Rows of attention's results again, one by one, from global memory: for inputs with NaN or infinity.
//
// Tensor cores multiply what a query does not see by a weight of 0, and 0 * NaN is NaN: a NaN in one masked key would
// reach all rows of its tile. Where a result is not finite, the fast kernels compute it again here, over what is seen
// alone. Finite inputs never come here (unless their result overflows), and to look costs next to nothing.
//
// A warp works on a row; of its channels lane l holds 2 l + 64 c and the one after.
#pragma once
#include "cuda_hopper.cuh"

struct Row { float2 x[PANELS]; };

DEVICE Row zero_row() {
    Row r;
#pragma unroll
    for (int c = 0; c < PANELS; c++) r.x[c] = make_float2(0, 0);
    return r;
}
DEVICE Row load_row(const TYPE* x) {
    Row r;
#pragma unroll
    for (int c = 0; c < PANELS; c++) {
        const TYPE* at = x + 64 * c + threadIdx.x % 32 * 2;
        r.x[c] = make_float2(to_float(at[0]), to_float(at[1]));
    }
    return r;
}
DEVICE float dot(const Row& a, const Row& b) {                  // the sum in every lane
    float sum = 0;
#pragma unroll
    for (int c = 0; c < PANELS; c++) sum += a.x[c].x * b.x[c].x + a.x[c].y * b.x[c].y;
    return warp_sum(sum);
}
DEVICE void add(Row& sum, float weight, const Row& a) {
#pragma unroll
    for (int c = 0; c < PANELS; c++) sum.x[c].x += weight * a.x[c].x, sum.x[c].y += weight * a.x[c].y;
}
DEVICE void scale_row(Row& a, float factor) {
#pragma unroll
    for (int c = 0; c < PANELS; c++) a.x[c].x *= factor, a.x[c].y *= factor;
}
// To row `row` of a tile in shared memory, or to global memory, where it need not lie at a multiple of 4 bytes.
DEVICE void store_row(const Row& a, u32 panels, u32 panel, u32 row) {
#pragma unroll
    for (int c = 0; c < PANELS; c++)
        shared_store(swizzled_address(panels + c * panel, row, threadIdx.x % 32 * 4), pack2<TYPE>(a.x[c].x, a.x[c].y));
}
DEVICE void store_row(const Row& a, TYPE* to) {
#pragma unroll
    for (int c = 0; c < PANELS; c++) {
        to[64 * c + threadIdx.x % 32 * 2] = from_float<TYPE>(a.x[c].x);
        to[64 * c + threadIdx.x % 32 * 2 + 1] = from_float<TYPE>(a.x[c].y);
    }
}

// Is a number of this warp's not finite? x - x is 0 for all others.
template <int R> DEVICE bool any_not_finite(const float (&x)[R]) {
    float sum = 0;
#pragma unroll
    for (int e = 0; e < R; e++) sum += x[e] - x[e];
    return __any_sync(0xffffffffu, sum != 0);                    // NaN != 0
}

struct Arrays { const TYPE *q, *k, *v, *dout; };
DEVICE const TYPE* query_row(const TYPE* x, const Sizes& n, int head, int i) {
    return x + ((u64)head * n.T + i) * HEAD_DIM;
}
DEVICE const TYPE* key_row(const TYPE* x, const Sizes& n, int head, int j) {     // head: of q
    return x + ((u64)(head / (n.H / n.HKV)) * n.S + j) * HEAD_DIM;
}

// out_i and lse_i. scale: of base 2, as in softmax_step.
DEVICE Row exact_output(const Arrays& a, const Sizes& n, Band m, int head, int i, float scale, float& lse) {
    const Row q = load_row(query_row(a.q, n, head, i));
    Row sum = zero_row();
    float top = -INFINITY, total = 0;
    for (int j = first_key(m, i); j < stop_key(m, i, n.S); j++) {
        const float s = dot(q, load_row(key_row(a.k, n, head, j))) * scale, higher = fmaxf(top, s);
        const float shift = higher == -INFINITY ? 0 : higher, factor = exp2f(top - shift), p = exp2f(s - shift);
        scale_row(sum, factor);
        add(sum, p, load_row(key_row(a.v, n, head, j)));
        total = total * factor + p, top = higher;
    }
    scale_row(sum, total == 0 ? 0 : 1 / total);
    lse = total == 0 ? -INFINITY : (top + log2f(total)) * LN_2;
    return sum;
}

// p_ij and dS_ij, from what prepare left of row i.
DEVICE float exact_gradient(const Row& q, const Row& k, const Row& v, const Row& dout, float scale, float lse2,
                            float delta, float& p) {
    p = exp2f(dot(q, k) * scale - lse2);
    return p * (dot(dout, v) - delta);
}
// dS K of one query; lse2, delta: of this query.
DEVICE Row exact_query_gradient(const Arrays& a, const Sizes& n, Band m, int head, int i, float scale, float lse2,
                                float delta) {
    const Row q = load_row(query_row(a.q, n, head, i)), dout = load_row(query_row(a.dout, n, head, i));
    Row sum = zero_row();
    for (int j = first_key(m, i); j < stop_key(m, i, n.S); j++) {
        float p;
        const Row k = load_row(key_row(a.k, n, head, j));
        add(sum, exact_gradient(q, k, load_row(key_row(a.v, n, head, j)), dout, scale, lse2, delta, p), k);
    }
    return sum;
}
// dS^T Q and P^T dO of one key of the kv head that `head` and those after it share; lse2, delta: [head][length].
DEVICE void exact_key_gradients(const Arrays& a, const Sizes& n, Band m, int head, int j, float scale,
                                const float* lse2, const float* delta, u64 length, Row& dk, Row& dv) {
    const Row k = load_row(key_row(a.k, n, head, j)), v = load_row(key_row(a.v, n, head, j));
    dk = dv = zero_row();
    for (int h = head; h < head + n.H / n.HKV; h++)
        for (int i = first_query(m, j); i < stop_query(m, j, n.T); i++) {
            float p;
            const Row q = load_row(query_row(a.q, n, h, i)), dout = load_row(query_row(a.dout, n, h, i));
            add(dk, exact_gradient(q, k, v, dout, scale, lse2[h * length + i], delta[h * length + i], p), q);
            add(dv, p, dout);
        }
}

// Rung 6, Hopper (sm_90a): rung 5 with fewer exponentials on the exp unit, and fewer corrections of O.
//
// The exp unit computes 16 exponentials a clock and multiprocessor, the multiply-add units 128 operations. At D 64 the
// exponentials take as long as the products, so even with perfect overlap they set the pace. Here some are polynomials:
//
//     2^x = 2^n 2^f      n = x rounded, f = x - n in [-1/2, 1/2]
//     2^f                a polynomial of degree 3, to 8e-5: weights are rounded to bf16 (4e-3) or f16 (5e-4) anyway
//     times 2^n          n added to the exponent's bits
//
// When a row's largest score grows, what is summed has to be scaled. The largest score only keeps 2^x in range, so
// any number near it will do: it is left alone until it has grown by more than 8 (weights then are up to 2^8), and
// warps in which no row has grown skip the multiplications of O. Ideas: FlashAttention-4.
//
// Expected: D 64 above 500 TFLOP/s. Not yet measured by this project.
#include "cuda_hopper.cuh"

#ifndef POLYNOMIALS
#define POLYNOMIALS 4                             // of 16 exponentials, in tiles that are not masked
#endif
constexpr float GROWTH = 8;                       // in powers of two

// 2^x for -126 <= x < 128 (below: 2^-126), relative error below 8e-5.
DEVICE float exp2_polynomial(float x) {
    const float ROUND = 12582912;                 // 1.5 * 2^23: added, the fraction's last bit counts ones
    x = fmaxf(x, -126.0f);
    const float shifted = x + ROUND, f = x - (shifted - ROUND);
    const float y = 0.9999281f + f * (0.69326097f + f * (0.24261081f + f * 0.055171434f));
    return __int_as_float(__float_as_int(y) + (__float_as_int(shifted) << 23));
}

// As softmax_step. True if some row of this warp has a new top.
template <int R> DEVICE bool lazy_softmax_step(float (&s)[R], Rows& rows, float (&factor)[2], float scale, bool cut) {
    bool moved = false;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float largest = rows.top[h], sum = 0;
#pragma unroll
        for (int c = 0; c < R / 4; c++) largest = fmaxf(largest, fmaxf(s[4 * c + 2 * h], s[4 * c + 2 * h + 1]));
        largest = row_max(largest);
        factor[h] = 1;
        if ((largest - rows.top[h]) * scale > GROWTH) {                  // from -inf: always
            factor[h] = exp2_approx((rows.top[h] - largest) * scale);
            rows.top[h] = largest;
            moved = true;
        }
        const float shift = rows.top[h] == -INFINITY ? 0 : rows.top[h] * scale;
        if (cut) {                                                       // 2^-inf must be 0
#pragma unroll
            for (int c = 0; c < R / 4; c++)
#pragma unroll
                for (int e = 2 * h; e < 2 * h + 2; e++) sum += s[4 * c + e] = exp2_approx(s[4 * c + e] * scale - shift);
        } else {
#pragma unroll
            for (int c = 0; c < R / 4; c++)
#pragma unroll
                for (int e = 2 * h; e < 2 * h + 2; e++) {
                    const float x = s[4 * c + e] * scale - shift;
                    const bool polynomial = (2 * c + e % 2) % 16 >= 16 - POLYNOMIALS;   // known when compiled
                    sum += s[4 * c + e] = polynomial ? exp2_polynomial(x) : exp2_approx(x);
                }
        }
        rows.total[h] = rows.total[h] * factor[h] + sum;
    }
    return __any_sync(0xffffffffu, moved);
}

#define SOFTMAX_STEP lazy_softmax_step
#include "cuda_5_overlap.cu"

// Tiles of 16-bit numbers in shared memory, and products of them on tensor cores: the words of rungs 2, 2b and 3.
//
// A tile lies in shared memory row by row, 16-byte chunks of 8 numbers. ldmatrix reads a column of chunks, one chunk of
// each of 8 rows: rows of 128 bytes would put all 8 into the same four banks, and the read would take 8 passes instead
// of one. So chunk c of row r is stored at c ^ (r % 8): then a column of chunks touches all 32 banks once ("swizzle").
//
// Fragments: mma multiplies 16 x 16 by 16 x 8, the numbers spread over the 32 lanes. The lane with g = lane / 4 and
// t = lane % 4 holds of a result c[0], c[1] in row g, columns 2t, 2t + 1, and c[2], c[3] in row g + 8. Two results side
// by side, rounded to 16 bits, are exactly the first operand of another product (`as_operand`): so softmax(S) goes from
// the product S = Q K^T to the product P V without leaving its registers.
#pragma once
#include "band.cuh"
#include "ptx.cuh"

#ifndef TYPE
#define TYPE bf16
#endif
#ifndef HEAD_DIM
#define HEAD_DIM 64                      // 64 or 128
#endif

constexpr int D = HEAD_DIM;
constexpr float LOG2E = 1.4426950408889634f;

template <int COLUMNS> struct Tile { u32 base; };   // its address in shared memory

// The address of 8 numbers in one row, from column 8 chunk on.
template <int COLUMNS> DEVICE u32 at(Tile<COLUMNS> tile, u32 row, u32 chunk) {
    constexpr u32 CHUNKS = COLUMNS / 8;  // of 4 chunks, two rows share 128 bytes
    return tile.base + row * CHUNKS * 16 + (chunk ^ (CHUNKS >= 8 ? row % 8 : row / 2 % 4)) * 16;
}

// The whole block of THREADS begins to copy rows first..first + ROWS - 1 of x (n, D) into the tile; rows from n on
// become zero. Done after cp_async_wait and a barrier.
template <int ROWS, int THREADS> DEVICE void load_rows(Tile<D> tile, const TYPE* x, int first, int n) {
    static_assert(ROWS * (D / 8) % THREADS == 0, "every thread copies the same number of chunks");
#pragma unroll 1                         // the addresses of copies side by side would take registers from the products
    for (int e = threadIdx.x; e < ROWS * (D / 8); e += THREADS) {
        int r = e / (D / 8), chunk = e % (D / 8);
        bool there = first + r < n;
        cp_async16(at(tile, r, chunk), x + (u64)(there ? first + r : 0) * D + chunk * 8, there);
    }
}

// Rows and columns below are multiples of 16, so that + and ^ of a lane's share are the same; ^ lets the compiler reach
// all chunks of a row from one address.

// The 16 x 16 numbers at (row, column) as first operand; and of the tile's transpose: its numbers at (column, row).
template <int C> DEVICE void operand_a(u32 (&a)[4], Tile<C> tile, u32 row, u32 column) {
    u32 lane = threadIdx.x % 32;
    ldmatrix_x4(a, at(tile, row + lane % 16, column / 8 ^ lane / 16));
}
template <int C> DEVICE void operand_a_transposed(u32 (&a)[4], Tile<C> tile, u32 row, u32 column) {
    u32 lane = threadIdx.x % 32;
    ldmatrix_x4_trans(a, at(tile, column + lane % 8 + lane / 16 * 8, row / 8 ^ lane / 8 % 2));
}
// Second operands, 16 x 16 (two of mma's, b[0..1] and b[2..3] side by side): the tile's numbers at (row, column), and
// those of its transpose.
template <int C> DEVICE void operand_b(u32 (&b)[4], Tile<C> tile, u32 row, u32 column) {
    u32 lane = threadIdx.x % 32;
    ldmatrix_x4_trans(b, at(tile, row + lane % 16, column / 8 ^ lane / 16));
}
template <int C> DEVICE void operand_b_transposed(u32 (&b)[4], Tile<C> tile, u32 row, u32 column) {
    u32 lane = threadIdx.x % 32;
    ldmatrix_x4(b, at(tile, column + lane % 8 + lane / 16 * 8, row / 8 ^ lane / 8 % 2));
}

// 16 x 16 results, rounded, as first operand of the next product.
DEVICE void as_operand(u32 (&a)[4], const float (&left)[4], const float (&right)[4]) {
    a[0] = pack2<TYPE>(left[0], left[1]);
    a[1] = pack2<TYPE>(left[2], left[3]);
    a[2] = pack2<TYPE>(right[0], right[1]);
    a[3] = pack2<TYPE>(right[2], right[3]);
}

// ---- what is masked stays out ------------------------------------------------------------------------------------
// A masked pair has weight 0, but 0 * NaN is NaN: NaN or infinity in a key would reach queries that do not see it. So
// in tiles that the mask cuts, numbers of B that are not finite are multiplied apart: where a weight that is not 0
// meets one, the result becomes NaN; everywhere else it does not notice. Ordinary numbers cost a few instructions.
template <class T> constexpr u32 EXPONENT = 0x7f80;      // all bits set: infinity or NaN
template <> constexpr u32 EXPONENT<f16> = 0x7c00;
template <class T> constexpr u32 ONE = 0x3f80;           // 1.0
template <> constexpr u32 ONE<f16> = 0x3c00;

// 1.0 for each of the two numbers in x that is not finite, and those numbers set to 0 in x.
DEVICE u32 take_not_finite(u32& x) {
    u32 low = (x & EXPONENT<TYPE>) == EXPONENT<TYPE> ? 0xffffu : 0;
    u32 high = (x >> 16 & EXPONENT<TYPE>) == EXPONENT<TYPE> ? 0xffff0000u : 0;
    x &= ~(low | high);
    return (ONE<TYPE> << 16 | ONE<TYPE>) & (low | high);
}
DEVICE u32 not_zero(u32 x) { return (x & 0x7fff ? ONE<TYPE> : 0) | (x & 0x7fff0000 ? ONE<TYPE> << 16 : 0); }

DEVICE void take_not_finite(u32 (&odd)[4], u32 (&b)[4]) {
#pragma unroll
    for (int e = 0; e < 4; e++) odd[e] = take_not_finite(b[e]);
}
DEVICE void keep_apart(float (&left)[4], float (&right)[4], const u32 (&a)[4], const u32 (&odd)[4]) {
    if (!__any_sync(0xffffffffu, (odd[0] | odd[1] | odd[2] | odd[3]) != 0)) return;
    u32 weighs[4] = {not_zero(a[0]), not_zero(a[1]), not_zero(a[2]), not_zero(a[3])};
    float met_left[4] = {}, met_right[4] = {};           // how many of them a result meets
    mma_m16n8k16<TYPE>(met_left, weighs, odd[0], odd[1]);
    mma_m16n8k16<TYPE>(met_right, weighs, odd[2], odd[3]);
#pragma unroll
    for (int e = 0; e < 4; e++) {
        if (met_left[e] > 0.0f) left[e] = NAN;
        if (met_right[e] > 0.0f) right[e] = NAN;
    }
}

// left, right (16 x 8 each, side by side) += a (16 x 16) b (16 x 16). MASKED: some weights in a are 0 for "not seen".
template <bool MASKED> DEVICE void multiply_add(float (&left)[4], float (&right)[4], const u32 (&a)[4], u32 (&b)[4]) {
    if (MASKED) {
        u32 odd[4];
        take_not_finite(odd, b);
        keep_apart(left, right, a, odd);
    }
    mma_m16n8k16<TYPE>(left, a, b[0], b[1]);
    mma_m16n8k16<TYPE>(right, a, b[2], b[3]);
}

// The largest of, and the sum over, the four lanes that hold one row of a result.
DEVICE float row_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
DEVICE float row_sum(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

// One warp: 16 rows of results (16 x D), row g times scale[0] and row g + 8 times scale[1], to the rows first.. of
// x (n, D): through 16 rows of shared memory, so that a lane writes 16 bytes.
DEVICE void store_rows(TYPE* x, int first, int n, u8* memory, const float (&c)[D / 8][4], const float (&scale)[2]) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int h = 0; h < 2; h++)
#pragma unroll
        for (int d = 0; d < D / 8; d++)
            *(u32*)(memory + at(Tile<D>{0}, lane / 4 + 8 * h, d) + lane % 4 * 4) =
                pack2<TYPE>(c[d][2 * h] * scale[h], c[d][2 * h + 1] * scale[h]);
    __syncwarp();
#pragma unroll
    for (int e = lane; e < 16 * (D / 8); e += 32) {
        int r = e / (D / 8), d = e % (D / 8);
        if (first + r >= n) continue;
        store16(x + (u64)(first + r) * D + 8 * d, load16((const TYPE*)(memory + at(Tile<D>{0}, r, d))));
    }
}

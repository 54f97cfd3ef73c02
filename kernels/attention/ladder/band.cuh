// Which keys a query sees, and the sizes of the arrays: what all rungs of attention share.
//
// Query i sees the keys i + low <= j <= i + high. Causal attention and a sliding window are both such a band: causal is
// high = offset, a window of w keys is low = offset - w + 1, and what is not asked for lies beyond the last key.
#pragma once
#include "common.cuh"

struct Sizes { int B, H, HKV, T, S; };   // q (B, H, T, D), k and v (B, HKV, S, D), lse (B, H, T); all contiguous
struct Band { int low, high; };

__device__ __forceinline__ bool sees(Band m, int i, int j) { return j >= i + m.low && j <= i + m.high; }

// The keys [first, stop) that some query of i0..i1 sees, and the queries that see some key of j0..j1.
__device__ __forceinline__ int first_key(Band m, int i0) { return max(0, i0 + m.low); }
__device__ __forceinline__ int stop_key(Band m, int i1, int S) { return min(S, i1 + m.high + 1); }
__device__ __forceinline__ int first_query(Band m, int j0) { return max(0, j0 - m.high); }
__device__ __forceinline__ int stop_query(Band m, int j1, int T) { return min(T, j1 - m.low + 1); }

// Every query of i0..i1 sees every key of j0..j1.
__device__ __forceinline__ bool sees_all(Band m, int i0, int i1, int j0, int j1) {
    return j0 >= i1 + m.low && j1 <= i0 + m.high;
}

// Philox4x32-10 (Salmon et al. 2011): four random words from a counter and a key, the words of kernels/random.
//
//     word i of (seed, position) = word i % 4 of philox(position + i / 4, seed)
//
// Ten rounds of two 32 x 32 -> 64 bit products, about 80 instructions for four words, and nothing to remember: a mask
// is made again where it is needed instead of being read from memory.
#pragma once
#include "common.cuh"

struct Words { u32 x[4]; };

DEVICE Words philox(u64 counter, u64 seed) {
    u32 c0 = (u32)counter, c1 = (u32)(counter >> 32), c2 = 0, c3 = 0;
    u32 k0 = (u32)seed, k1 = (u32)(seed >> 32);
#pragma unroll
    for (int round = 0; round < 10; round++) {
        u64 p0 = (u64)0xD2511F53u * c0, p1 = (u64)0xCD9E8D57u * c2;
        c0 = (u32)(p1 >> 32) ^ c1 ^ k0;
        c2 = (u32)(p0 >> 32) ^ c3 ^ k1;
        c1 = (u32)p1;
        c3 = (u32)p0;
        k0 += 0x9E3779B9u;       // golden ratio and sqrt(3), less 1
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

// words[j] = word i + j of (seed, position), N of them; i and N are multiples of 4.
template <int N> DEVICE void philox_words(u32 (&words)[N], u64 i, u64 seed, u64 position) {
#pragma unroll
    for (int j = 0; j < N; j += 4) {
        Words four = philox(position + (i + j) / 4, seed);
#pragma unroll
        for (int k = 0; k < 4; k++) words[j + k] = four.x[k];
    }
}

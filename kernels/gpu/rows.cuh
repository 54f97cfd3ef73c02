// Kernels that work on the rows of a matrix (rows, n), contiguous: softmax, norms, losses.
//
// A row belongs to a team of TEAM threads: a warp, or 8 of its lanes, for short rows (several rows to a block), a block
// for long ones. A thread holds PACKS packs of 16 bytes of the row in registers, so that the row is read from memory
// once, however often the formula passes over it. Neighbours hold neighbouring packs: a warp reads 512 bytes at a time.
//
//     pack       0     1     2    ...  TEAM-1 | TEAM ...             of a row that begins `phase` numbers behind a
//     thread     0     1     2    ...  TEAM-1 |  0  1 ...            multiple of 16 bytes: pack 0 begins at -phase,
//     numbers  [-phase, N - phase)  [N - phase, 2N - phase) ...      and its first numbers are not there
//
// TEAM * PACKS packs are a chunk. A row of several chunks does not fit: it is read again at every pass (from the L2
// cache, as a rule). Both kinds run through the same loop; the first kind once, and reads nothing in it:
//
//     Row<T> row(x + r * n, n, fill);
//     for (int start = row.begin; start < n; start += CHUNK) {
//         row.fetch(start);                                          // does nothing for a row that fits
//         for k < PACKS: { auto x = row.pack(k, sum);                // x[e] is number i = column(start, k) + e of the
//             for e < N: sum += x[e]; }                              // row, `fill` where i < 0 or i >= n
//     }
#pragma once
#include "common.cuh"

#ifndef TYPE
#define TYPE float
#endif
#ifndef TEAM
#define TEAM 32        // threads of a row: 8 or 32, or a multiple of 32 up to 1024
#endif
#ifndef PACKS
#define PACKS 4        // packs of a row that a thread holds
#endif
#ifndef WARPS
#define WARPS 4        // of a block, where TEAM is at most 32
#endif
constexpr int N = Pack<TYPE>::N;              // numbers of a pack: 4 or 8
constexpr int CHUNK = TEAM * PACKS * N;       // numbers of a chunk
constexpr int THREADS = TEAM > 32 ? TEAM : 32 * WARPS;
constexpr int TEAMS = THREADS / TEAM;         // of a block
constexpr int RESIDENT = THREADS > 768 ? 1 : 768 / THREADS;   // blocks that a multiprocessor must hold: 80 registers
constexpr int SCRATCH = 64;                   // numbers of shared memory that team_sum needs: 32 for each sum

DEVICE int member() { return threadIdx.x % TEAM; }                                  // this thread's number in its team
DEVICE long long team_row() { return (long long)blockIdx.x * TEAMS + threadIdx.x / TEAM; }
DEVICE int column(int start, int k) { return start + (k * TEAM + member()) * N; }   // of the first number of pack k
DEVICE bool inside(int i, int n) { return (u32)i < (u32)n; }

// 16 bytes as they come from memory: two numbers of 16 bits share a register. x[e] and x.set(e, v) with e constant.
template <class T> struct Numbers {
    u32 word[4];

    DEVICE float operator[](int e) const {
        if constexpr (sizeof(T) == 4) return __uint_as_float(word[e]);
        else return to_float(T{(u16)(word[e / 2] >> 16 * (e % 2))});
    }
    DEVICE void set(int e, float x) {         // e in rising order
        if constexpr (sizeof(T) == 4) word[e] = __float_as_uint(x);
        else word[e / 2] = e % 2 ? word[e / 2] | (u32)from_float<T>(x).bits << 16 : from_float<T>(x).bits;
    }
};

template <class T> DEVICE u32 bits_of(T x) {
    if constexpr (sizeof(T) == 4) return __float_as_uint(x);
    else return x.bits;
}

template <class T> DEVICE Numbers<T> load16_numbers(const T* p) {   // p: a multiple of 16 bytes
    union { uint4 raw; Numbers<T> numbers; } u{*(const uint4*)p};
    return u.numbers;
}

// The numbers i .. i + N - 1 of a row; `fill` for those outside 0 .. n - 1, which are not read. Where they do not lie
// at a multiple of 16 bytes, number by number, in a loop that stays short: it is there for the odd ends.
template <class T> DEVICE Numbers<T> load_numbers(const T* row, int i, int n, float fill) {
    constexpr int PAIR = 4 / sizeof(T);       // numbers of a word
    Numbers<T> x;
    if (i >= 0 && i + N <= n && aligned16(row + i)) return load16_numbers(row + i);
#pragma unroll 1
    for (int j = i; j < i + N; j += PAIR) {   // the words move down, the next comes in at the top
        u32 word = 0;
#pragma unroll
        for (int e = 0; e < PAIR; e++)
            word |= bits_of(inside(j + e, n) ? row[j + e] : from_float<T>(fill)) << 16 * e;
        x.word[0] = x.word[1], x.word[1] = x.word[2], x.word[2] = x.word[3], x.word[3] = word;
    }
    return x;
}
template <class T> DEVICE void store_numbers(T* row, int i, int n, Numbers<T> x) {
    constexpr int PAIR = 4 / sizeof(T);
    if (i >= 0 && i + N <= n && aligned16(row + i)) {
        union { Numbers<T> numbers; uint4 raw; } u{x};
        *(uint4*)(row + i) = u.raw;
        return;
    }
#pragma unroll 1
    for (int j = i; j < i + N; j += PAIR) {
#pragma unroll
        for (int e = 0; e < PAIR; e++)
            if (inside(j + e, n)) {
                if constexpr (PAIR == 1) row[j] = __uint_as_float(x.word[0]);
                else row[j + e] = T{(u16)(x.word[0] >> 16 * e)};
            }
        x.word[0] = x.word[1], x.word[1] = x.word[2], x.word[2] = x.word[3];
    }
}

// How many numbers lie between the last multiple of 16 bytes and p.
template <class T> DEVICE int phase(const T* p) { return (int)((u64)p % 16 / sizeof(T)); }

template <class T> struct Row {
    const T* row;
    int n, begin;                             // the first chunk starts at number `begin` <= 0
    float fill;
    bool aligned, several;                    // packs lie at multiples of 16 bytes; there are several chunks
    Numbers<T> held[PACKS];

    DEVICE Row(const T* row, int n, float fill) : Row(row, n, fill, -phase(row), true) {}
    DEVICE Row(const T* row, int n, float fill, int begin) : Row(row, n, fill, begin, aligned16(row + begin)) {}
    DEVICE Row(const T* row, int n, float fill, int begin, bool aligned)
        : row(row), n(n), begin(begin), fill(fill), aligned(aligned), several(n - begin > CHUNK) {
        if (!several) load(begin);
    }
    DEVICE void fetch(int start) {
        if (several) load(start);
    }
    // Pack k. The compiler is told that it is something new, known only after `sum`: else it unpacks all packs at once
    // and keeps the numbers from one pass to the next, each in a register of its own, and runs out of them.
    DEVICE Numbers<T> pack(int k, float& sum) const {
        Numbers<T> x = held[k];
#ifndef CUDA_SIMULATOR
        asm volatile("" : "+r"(x.word[0]), "+r"(x.word[1]), "+r"(x.word[2]), "+r"(x.word[3]), "+f"(sum));
#endif
        return x;
    }
    DEVICE Numbers<T> pack(int k) const {
        float none = 0.0f;
        return pack(k, none);
    }
    // First all whole packs, one load behind the other without a branch between, so that all are under way at once;
    // then, in a row that is not made of whole packs only, its ends. The compiler must not prepare for them before.
    DEVICE void load(int start) {
        Numbers<T> nothing;
#pragma unroll
        for (int e = 0; e < N; e++) nothing.set(e, fill);
#pragma unroll
        for (int k = 0; k < PACKS; k++) {
            int i = column(start, k);
            held[k] = nothing;
            if (aligned && i >= 0 && i + N <= n) held[k] = load16_numbers(row + i);
        }
        if (aligned && begin == 0 && n % N == 0) return;
        const T* again = row;
#pragma unroll
        for (int k = 0; k < PACKS; k++) {
#ifndef CUDA_SIMULATOR
            asm volatile("" : "+l"(again), "+r"(start));
#endif
            int i = column(start, k);
            bool whole = aligned && i >= 0 && i + N <= n, outside = i >= n || i + N <= 0;
            if (!whole && !outside) held[k] = load_numbers(again, i, n, fill);
        }
    }
};

// ---- sums over the team: the result in every thread, the same order on every run ----------------------------------
template <class W> DEVICE W larger(W a, W b) { return a > b ? a : b; }

// The lanes of this team, in a warp that it may share with others: those may have left, or go another way.
constexpr int LANES = TEAM < 32 ? TEAM : 32;
DEVICE u32 team_mask() { return TEAM < 32 ? ((1u << LANES) - 1) << (threadIdx.x % 32 / LANES * LANES) : 0xffffffffu; }

// What the lanes of this warp have written is there for the others of the team.
DEVICE void team_lanes_sync() { __syncwarp(team_mask()); }

template <bool MAX, int M, class W> DEVICE void team_reduce(W (&x)[M], W* scratch) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int m = 0; m < M; m++)
        for (int step = LANES / 2; step > 0; step /= 2) {
            W other = __shfl_xor_sync(team_mask(), x[m], step);
            x[m] = MAX ? larger(x[m], other) : x[m] + other;
        }
    if constexpr (TEAM > 32) {
        if (lane == 0)
            for (int m = 0; m < M; m++) scratch[32 * m + warp] = x[m];
        __syncthreads();
#pragma unroll
        for (int m = 0; m < M; m++) {         // every warp reduces what the warps have found
            x[m] = lane < TEAM / 32 ? scratch[32 * m + lane] : (MAX ? (W)-INFINITY : (W)0);
            for (int step = 16; step > 0; step /= 2) {
                W other = __shfl_xor_sync(0xffffffffu, x[m], step);
                x[m] = MAX ? larger(x[m], other) : x[m] + other;
            }
        }
        __syncthreads();                      // the scratch may be written again
    }
}
template <int M, class W> DEVICE void team_sums(W (&x)[M], W* scratch) { team_reduce<false>(x, scratch); }
template <class W> DEVICE W team_sum(W x, W* scratch) {
    W one[1] = {x};
    team_reduce<false>(one, scratch);
    return one[0];
}
DEVICE float team_max(float x, float* scratch) {
    float one[1] = {x};
    team_reduce<true>(one, scratch);
    return one[0];
}

// exp: to 2 ulp where float is stored; else by the exp unit alone, whose error of |x| 2^-23 vanishes in 16 bits.
template <class T> DEVICE float exp_for(float x) { return sizeof(T) == 4 ? expf(x) : __expf(x); }

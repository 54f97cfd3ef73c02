// Random words, uniform and normal numbers from Philox counters (philox.cuh), those of kernels/random's reference.
//
//     uniform = (word >> 8) / 2^24                          bf16: 8 bits, f16: 11 bits, or they would round up to 1
//     normal  = mean + std sqrt(-2 log u1) (cos, sin)(2 pi u2),   u1 = (word + 1/2) / 2^32,  u2 = word / 2^32
//
// Words and uniform numbers: a thread makes 16 bytes at a time, and writing them is what it waits for. Normal numbers:
// a thread makes four pairs, in double, so that they are those of the CPU to the last bit that float shows (but for
// one in 10^7); that takes about 80 double-precision instructions a pair, a third of what writing allows on a data
// centre's GPU.
#include "elements.cuh"
#include "philox.cuh"
#ifndef TYPE
#define TYPE float
#endif

extern "C" __global__ void philox_bits(u32* out, u64 n, int whole, u64 seed, u64 position) {
    for (u64 i = first_pack<u32>(); i < n; i += all_packs<u32>()) {
        Pack<u32> words;
        philox_words(words.x, i, seed, position);
        if (whole && i + 4 <= n) store16(out + i, words);
        else for (int j = 0; j < 4 && i + j < n; j++) out[i + j] = words.x[j];
    }
}

template <class T> struct Digits { static constexpr int N = 24; };   // of a uniform number: those that T holds
template <> struct Digits<f16> { static constexpr int N = 11; };
template <> struct Digits<bf16> { static constexpr int N = 8; };

extern "C" __global__ void philox_uniform(TYPE* out, u64 n, int whole, u64 seed, u64 position) {
    constexpr int digits = Digits<TYPE>::N;
    for (u64 i = first_pack<TYPE>(); i < n; i += all_packs<TYPE>()) {
        Floats<TYPE> v;
        u32 words[v.N];
        philox_words(words, i, seed, position);
#pragma unroll
        for (int j = 0; j < v.N; j++) v.x[j] = (float)(words[j] >> (32 - digits)) * (1.0f / (1u << digits));
        store(out, i, n, whole, v);
    }
}

// ---- normal numbers: the arithmetic of normal.py, which needs no library -------------------------------------------
__device__ __forceinline__ double log_of_unit(u32 word) {       // log((word + 1/2) / 2^32)
    u64 odd = 2 * (u64)word + 1;                                 // = 2^33 u1, exact
    int e = 32 - __clz((int)word);                               // its highest bit
    double m = (double)(odd << (63 - e)) * (1.0 / (1ull << 63)); // odd = 2^e m,  1 <= m < 2
    if (m > 1.4142135623730951) m *= 0.5, e++;
    double s = (m - 1.0) / (m + 1.0), t = s * s;                 // log m = 2 atanh(s)
    double p = 2.0 / 21;
#pragma unroll
    for (int k = 9; k >= 0; k--) p = fma(p, t, 2.0 / (2 * k + 1));
    return fma((double)(e - 33), 0.6931471805599453, s * p);
}

// cos and sin of a turn of word / 2^32: of the angle less the nearest quarter, exchanged and negated by the quarter
__device__ __forceinline__ void cos_sin_of_turn(u32 word, double& c, double& s) {
    u32 quarter = (word + (1u << 29)) >> 30;                     // 0 .. 3, and 0 again behind the last half quarter
    double t = (double)(int)(word - (quarter << 30)) * 1.4629180792671596e-9;     // 2 pi / 2^32; |t| <= pi / 4
    double square = t * t;
    const double cosine[9] = {1.0, -1.0 / 2, 1.0 / 24, -1.0 / 720, 1.0 / 40320, -1.0 / 3628800, 1.0 / 479001600,
                              -1.0 / 87178291200.0, 1.0 / 20922789888000.0};
    const double sine[9] = {1.0, -1.0 / 6, 1.0 / 120, -1.0 / 5040, 1.0 / 362880, -1.0 / 39916800, 1.0 / 6227020800.0,
                            -1.0 / 1307674368000.0, 1.0 / 355687428096000.0};
    double x = cosine[8], y = sine[8];
#pragma unroll
    for (int k = 7; k >= 0; k--) x = fma(x, square, cosine[k]), y = fma(y, square, sine[k]);
    y *= t;
    c = quarter & 1 ? y : x, s = quarter & 1 ? x : y;
    if ((quarter + 1) & 2) c = -c;
    if (quarter & 2) s = -s;
}

// Rounded once. A float between two f16 numbers would be rounded twice: the last bit of an inexact one is made odd, so
// that it is no tie. (bf16 as ml_dtypes has it, which does round twice.)
template <class T> __device__ __forceinline__ T from_double(double x) { return from_float<T>((float)x); }
template <> __device__ __forceinline__ f16 from_double<f16>(double x) {
    float y = (float)x;
    u32 bits = __float_as_uint(y);
    if ((double)y != x && bits % 2 == 0) bits += fabs((double)y) < fabs(x) ? 1 : -1;
    return from_float<f16>(__uint_as_float(bits));
}

// The words of the stream's first half go with those of its second half: u1 = word i, u2 = word half + i. The cosines
// are out[i], the sines out[half + i]. A thread takes the four u1 of a counter; their u2 may lie in two.
extern "C" __global__ void philox_normal(TYPE* out, u64 n, u64 half, u64 seed, u64 position, double mean, double std) {
    u64 thread = (u64)blockIdx.x * blockDim.x + threadIdx.x, threads = (u64)gridDim.x * blockDim.x;
    for (u64 i = 4 * thread; i < half; i += 4 * threads) {
        Words first = philox(position + i / 4, seed);
        u32 second[8];
        u32 skip = (u32)(half % 4);
        philox_words(second, half - skip + i, seed, position);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            u32 other = skip == 0 ? second[j] : skip == 1 ? second[j + 1] : skip == 2 ? second[j + 2] : second[j + 3];
            double radius = sqrt(-2.0 * log_of_unit(first.x[j])), c, s;
            cos_sin_of_turn(other, c, s);
            if (i + j < half) out[i + j] = from_double<TYPE>(fma(std, radius * c, mean));
            if (i + j < half && half + i + j < n) out[half + i + j] = from_double<TYPE>(fma(std, radius * s, mean));
        }
    }
}

// What every CUDA kernel here may use: storage types, 16-byte packs, sums and maxima over a warp and a block.
//
// Numbers are stored as float, bf16 or f16 and computed in float: load, to_float, compute, from_float<T>, store.
// No header of the CUDA toolkit is needed, so that NVRTC compiles this on any machine, and g++ for the simulator.
#pragma once
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
#define DEVICE __device__ __forceinline__

#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif
#ifndef NAN
#define NAN __int_as_float(0x7fffffff)
#endif
#ifndef CUDA_SIMULATOR
#define DYN_SMEM(name) extern __shared__ __align__(1024) u8 name[]   // dynamic shared memory as u8* name
#endif

// ---- storage types ----------------------------------------------------------------------------------------------
struct bf16 { u16 bits; };   // 8 bits of exponent, 7 of fraction: the upper half of a float
struct f16 { u16 bits; };    // IEEE half: 5 bits of exponent, 10 of fraction

DEVICE float to_float(float x) { return x; }
DEVICE float to_float(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
#ifdef CUDA_SIMULATOR
DEVICE float to_float(f16 x) { return sim::from_half(x.bits); }
#else
DEVICE float to_float(f16 x) { float y; asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits)); return y; }
#endif

// Rounds to nearest, ties to even. A NaN stays a NaN.
template <class T> DEVICE T from_float(float x);
template <> DEVICE float from_float<float>(float x) { return x; }
template <> DEVICE bf16 from_float<bf16>(float x) {
#if defined(CUDA_SIMULATOR) || __CUDA_ARCH__ < 800
    u32 u = __float_as_uint(x);
    if ((u & 0x7fffffff) > 0x7f800000) return {(u16)(u >> 16 | 64)};
    return {(u16)((u + 0x7fff + (u >> 16 & 1)) >> 16)};
#else
    bf16 y; asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); return y;
#endif
}
template <> DEVICE f16 from_float<f16>(float x) {
#ifdef CUDA_SIMULATOR
    return {sim::to_half(x)};
#else
    f16 y; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); return y;
#endif
}

// ---- 16 bytes at a time: the widest access of a thread -------------------------------------------------------------
template <class T> struct alignas(16) Pack {
    static constexpr int N = 16 / sizeof(T);
    T x[N];
};
template <class T> DEVICE Pack<T> load16(const T* p) {   // p: a multiple of 16 bytes
    union { uint4 raw; Pack<T> pack; } u{*(const uint4*)p};
    return u.pack;
}
template <class T> DEVICE void store16(T* p, Pack<T> pack) {
    union { Pack<T> pack; uint4 raw; } u{pack};
    *(uint4*)p = u.raw;
}
DEVICE bool aligned16(const void* p) { return (u64)p % 16 == 0; }

// ---- sums over 32 lanes and over a block: the same order on every run, the result in every thread -------------------
DEVICE float warp_sum(float x) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}
DEVICE float warp_max(float x) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}

// Every thread of the block takes part; blockDim.x is a multiple of 32. scratch: 33 floats of shared memory, which may
// be used again after the call.
template <bool MAX> DEVICE float block_reduce(float x, float* scratch) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    x = MAX ? warp_max(x) : warp_sum(x);
    if (lane == 0) scratch[warp] = x;
    __syncthreads();
    if (warp == 0) {
        x = lane < warps ? scratch[lane] : (MAX ? -INFINITY : 0.0f);
        x = MAX ? warp_max(x) : warp_sum(x);
        if (lane == 0) scratch[32] = x;
    }
    __syncthreads();
    x = scratch[32];
    __syncthreads();
    return x;
}
DEVICE float block_sum(float x, float* scratch) { return block_reduce<false>(x, scratch); }
DEVICE float block_max(float x, float* scratch) { return block_reduce<true>(x, scratch); }

// CUDA C++ for a C++ compiler: what a kernel finds here instead of NVIDIA's headers. Every function does on the CPU
// what CUDA's function of that name does. No other header is included, so that a kernel compiles quickly.
#pragma once
#include "api.h"

#define CUDA_SIMULATOR 1
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __restrict__ __restrict
#define __align__(n) alignas(n)
#define __shared__ static __attribute__((section("cuda_shared"), aligned(16)))
#define __constant__ static const
#define DYN_SMEM(name) unsigned char* name = sim_arena
#define SIM_INLINE static inline __attribute__((always_inline))
#define SIM_UNCHECKED __attribute__((noinline, no_sanitize("thread")))   // its memory accesses are not checked

#define threadIdx sim_thread_index
#define blockIdx sim_block_index
#define blockDim sim_block_dim
#define gridDim sim_grid_dim
#define warpSize 32

struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
SIM_INLINE float2 make_float2(float x, float y) { return {x, y}; }
SIM_INLINE float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
SIM_INLINE int2 make_int2(int x, int y) { return {x, y}; }
SIM_INLINE int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
SIM_INLINE uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
SIM_INLINE uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// ---- barriers and exchanges between lanes ---------------------------------------------------------------------------
SIM_INLINE void __syncthreads() { sim_syncthreads("__syncthreads"); }
SIM_INLINE int __syncthreads_or(int x) { return sim_syncthreads_or(x); }
SIM_INLINE int __syncthreads_and(int x) { return sim_syncthreads_and(x); }
SIM_INLINE int __syncthreads_count(int x) { return sim_syncthreads_count(x); }
SIM_INLINE void __syncwarp(unsigned mask = ~0u) { sim_syncwarp(mask); }
SIM_INLINE void __threadfence() { sim_threadfence(); }
SIM_INLINE void __threadfence_block() {}
SIM_INLINE void __trap() { sim_trap("__trap"); }
#undef assert
#define assert(x) ((x) ? (void)0 : sim_trap("assertion failed: " #x))

namespace sim {
SIM_INLINE int lane() { return sim_thread_number % 32; }
template <class T> SIM_INLINE T shuffle(unsigned mask, T value, int from, const char* what) {
    T out = value;
    sim_shuffle(mask, &value, &out, sizeof(T), from, what);
    return out;
}
}  // namespace sim
template <class T> SIM_INLINE T __shfl_sync(unsigned m, T x, int from, int width = 32) {
    return sim::shuffle(m, x, sim::lane() / width * width + (from & (width - 1)), "__shfl_sync");
}
template <class T> SIM_INLINE T __shfl_xor_sync(unsigned m, T x, int step, int width = 32) {
    int lane = sim::lane(), to = lane ^ step;                     // in a later group of `width` lanes: itself
    return sim::shuffle(m, x, to / width <= lane / width ? to % 32 : lane, "__shfl_xor_sync");
}
template <class T> SIM_INLINE T __shfl_down_sync(unsigned m, T x, int step, int width = 32) {
    int lane = sim::lane();
    return sim::shuffle(m, x, lane % width + step < width ? lane + step : lane, "__shfl_down_sync");
}
template <class T> SIM_INLINE T __shfl_up_sync(unsigned m, T x, int step, int width = 32) {
    int lane = sim::lane();
    return sim::shuffle(m, x, lane % width - step >= 0 ? lane - step : lane, "__shfl_up_sync");
}
SIM_INLINE unsigned __ballot_sync(unsigned m, int x) { return sim_ballot(m, x != 0, "__ballot_sync"); }
SIM_INLINE int __any_sync(unsigned m, int x) { return sim_ballot(m, x != 0, "__any_sync") != 0; }
SIM_INLINE int __all_sync(unsigned m, int x) { return sim_ballot(m, x == 0, "__all_sync") == 0; }
template <class T> SIM_INLINE unsigned __match_any_sync(unsigned m, T x) {
    T all[32];
    sim_gather(m, &x, all, sizeof(T), "__match_any_sync");
    unsigned same = 0;
    for (int i = 0; i < 32; i++) if ((sim_members(m) >> i & 1) && all[i] == x) same |= 1u << i;
    return same;
}
#define SIM_REDUCE(name, T, first, expression)                                                  \
    SIM_INLINE T name(unsigned m, T x) {                                                        \
        T all[32], a = first;                                                                   \
        sim_gather(m, &x, all, sizeof(T), #name);                                               \
        for (int i = 0; i < 32; i++) if (sim_members(m) >> i & 1) { T b = all[i]; a = expression; } \
        return a;                                                                               \
    }
SIM_REDUCE(__reduce_add_sync, unsigned, 0, a + b)
SIM_REDUCE(__reduce_max_sync, unsigned, 0, a > b ? a : b)
SIM_REDUCE(__reduce_min_sync, unsigned, ~0u, a < b ? a : b)
SIM_REDUCE(__reduce_or_sync, unsigned, 0, a | b)
SIM_REDUCE(__reduce_and_sync, unsigned, ~0u, a & b)

// ---- atomics: one thread runs at a time -----------------------------------------------------------------------------
namespace sim {
template <class T, class F> SIM_UNCHECKED T replace(T* p, F value) { T old = *p; *p = value(old); return old; }
template <class T> struct same { typedef T type; };
}  // namespace sim
#define SIM_ATOMIC(name, expression)                                                            \
    template <class T> SIM_INLINE T name(T* p, typename sim::same<T>::type x) {                 \
        sim_atomic(p, sizeof(T));                                                               \
        return sim::replace(p, [x](T old) __attribute__((no_sanitize("thread"))) -> T { return expression; }); \
    }
SIM_ATOMIC(atomicAdd, old + x)
SIM_ATOMIC(atomicSub, old - x)
SIM_ATOMIC(atomicMax, old > x ? old : x)
SIM_ATOMIC(atomicMin, old < x ? old : x)
SIM_ATOMIC(atomicAnd, old & x)
SIM_ATOMIC(atomicOr, old | x)
SIM_ATOMIC(atomicXor, old ^ x)
SIM_ATOMIC(atomicExch, x)
SIM_ATOMIC(atomicInc, old >= x ? 0 : old + 1)
template <class T> SIM_INLINE T atomicCAS(T* p, typename sim::same<T>::type compare, typename sim::same<T>::type x) {
    sim_atomic(p, sizeof(T));
    return sim::replace(p, [=](T old) __attribute__((no_sanitize("thread"))) -> T { return old == compare ? x : old; });
}

// ---- loads and stores with cache hints: plain ones ------------------------------------------------------------------
template <class T> SIM_INLINE T __ldg(const T* p) { return *p; }
template <class T> SIM_INLINE T __ldcg(const T* p) { return *p; }
template <class T> SIM_INLINE T __ldcs(const T* p) { return *p; }
template <class T> SIM_INLINE T __ldlu(const T* p) { return *p; }
template <class T> SIM_INLINE void __stcg(T* p, T x) { *p = x; }
template <class T> SIM_INLINE void __stcs(T* p, T x) { *p = x; }

// ---- numbers --------------------------------------------------------------------------------------------------------
#define SIM_NOTHROW noexcept(true)
extern "C" {
#define SIM_MATH(name) double name(double) SIM_NOTHROW; float name##f(float) SIM_NOTHROW;
SIM_MATH(exp) SIM_MATH(exp2) SIM_MATH(expm1) SIM_MATH(log) SIM_MATH(log2) SIM_MATH(log10) SIM_MATH(log1p) SIM_MATH(sqrt)
SIM_MATH(cbrt) SIM_MATH(sin) SIM_MATH(cos) SIM_MATH(tan) SIM_MATH(asin) SIM_MATH(acos) SIM_MATH(atan) SIM_MATH(sinh)
SIM_MATH(cosh) SIM_MATH(tanh) SIM_MATH(erf) SIM_MATH(erfc) SIM_MATH(lgamma) SIM_MATH(tgamma) SIM_MATH(floor)
SIM_MATH(ceil) SIM_MATH(trunc) SIM_MATH(round) SIM_MATH(rint) SIM_MATH(nearbyint) SIM_MATH(fabs)
#undef SIM_MATH
#define SIM_MATH(name) double name(double, double) SIM_NOTHROW; float name##f(float, float) SIM_NOTHROW;
SIM_MATH(pow) SIM_MATH(fmod) SIM_MATH(fmax) SIM_MATH(fmin) SIM_MATH(atan2) SIM_MATH(hypot) SIM_MATH(copysign)
SIM_MATH(remainder) SIM_MATH(fdim)
#undef SIM_MATH
double fma(double, double, double) SIM_NOTHROW;
float fmaf(float, float, float) SIM_NOTHROW;
double ldexp(double, int) SIM_NOTHROW;
float ldexpf(float, int) SIM_NOTHROW;
double frexp(double, int*) SIM_NOTHROW;
float frexpf(float, int*) SIM_NOTHROW;
long lrintf(float) SIM_NOTHROW;
long lroundf(float) SIM_NOTHROW;
int abs(int) SIM_NOTHROW;
void* memcpy(void*, const void*, unsigned long) SIM_NOTHROW;
void* memset(void*, int, unsigned long) SIM_NOTHROW;
int printf(const char*, ...);
}
#define SIM_FLOAT(name) SIM_INLINE float name(float x) { return name##f(x); }
SIM_FLOAT(exp) SIM_FLOAT(exp2) SIM_FLOAT(expm1) SIM_FLOAT(log) SIM_FLOAT(log2) SIM_FLOAT(log10) SIM_FLOAT(log1p)
SIM_FLOAT(sqrt) SIM_FLOAT(sin) SIM_FLOAT(cos) SIM_FLOAT(tanh) SIM_FLOAT(erf) SIM_FLOAT(floor) SIM_FLOAT(ceil)
SIM_FLOAT(rint) SIM_FLOAT(fabs)
#undef SIM_FLOAT
SIM_INLINE float abs(float x) { return fabsf(x); }
SIM_INLINE float pow(float x, float y) { return powf(x, y); }
SIM_INLINE float fma(float a, float b, float c) { return fmaf(a, b, c); }
SIM_INLINE bool isnan(float x) { return __builtin_isnan(x); }
SIM_INLINE bool isinf(float x) { return __builtin_isinf(x); }
SIM_INLINE bool isfinite(float x) { return __builtin_isfinite(x); }
namespace std { using ::exp2f; using ::expf; using ::logf; SIM_INLINE float exp2(float x) { return exp2f(x); } }

namespace sim {
template <class A, class B> struct wider { typedef decltype(true ? A() : B()) type; };
}  // namespace sim
template <class A, class B> SIM_INLINE constexpr typename sim::wider<A, B>::type min(A a, B b) {
    typedef typename sim::wider<A, B>::type T;
    return (T)b < (T)a ? (T)b : (T)a;
}
template <class A, class B> SIM_INLINE constexpr typename sim::wider<A, B>::type max(A a, B b) {
    typedef typename sim::wider<A, B>::type T;
    return (T)a < (T)b ? (T)b : (T)a;
}
SIM_INLINE float __int_as_float(int x) { return __builtin_bit_cast(float, x); }
SIM_INLINE int __float_as_int(float x) { return __builtin_bit_cast(int, x); }
SIM_INLINE float __uint_as_float(unsigned x) { return __builtin_bit_cast(float, x); }
SIM_INLINE unsigned __float_as_uint(float x) { return __builtin_bit_cast(unsigned, x); }
#define __expf(x) expf((float)(x))                // macros: the C library may have taken the names
#define __exp2f(x) exp2f((float)(x))
#define __logf(x) logf((float)(x))
#define __log2f(x) log2f((float)(x))
#define __sinf(x) sinf((float)(x))
#define __cosf(x) cosf((float)(x))
#define __powf(x, y) powf((float)(x), (float)(y))
SIM_INLINE float __fdividef(float a, float b) { return a / b; }
SIM_INLINE float __fdiv_rn(float a, float b) { return a / b; }
SIM_INLINE float rsqrtf(float x) { return 1.0f / sqrtf(x); }
SIM_INLINE float __frsqrt_rn(float x) { return 1.0f / sqrtf(x); }
SIM_INLINE float __fsqrt_rn(float x) { return sqrtf(x); }
SIM_INLINE float __frcp_rn(float x) { return 1.0f / x; }
SIM_INLINE float __saturatef(float x) { return x < 0 ? 0 : x > 1 ? 1 : x; }
SIM_INLINE void sincosf(float x, float* s, float* c) { *s = sinf(x), *c = cosf(x); }
SIM_INLINE unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }
SIM_INLINE int __mulhi(int a, int b) { return (int)((long long)a * b >> 32); }
SIM_INLINE unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
SIM_INLINE int __popc(unsigned x) { return __builtin_popcount(x); }
SIM_INLINE int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
SIM_INLINE int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
SIM_INLINE int __ffs(int x) { return __builtin_ffs(x); }
SIM_INLINE unsigned __brev(unsigned x) {
    unsigned y = 0;
    for (int i = 0; i < 32; i++) y |= (x >> i & 1) << (31 - i);
    return y;
}
SIM_INLINE float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
SIM_INLINE float __fmul_rn(float a, float b) { return a * b; }
SIM_INLINE float __fadd_rn(float a, float b) { return a + b; }
SIM_INLINE float __fsub_rn(float a, float b) { return a - b; }
SIM_INLINE int __float2int_rn(float x) { return (int)rintf(x); }
SIM_INLINE int __float2int_rz(float x) { return (int)x; }
SIM_INLINE unsigned __float2uint_rn(float x) { return (unsigned)rintf(x); }
SIM_INLINE float __int2float_rn(int x) { return (float)x; }
SIM_INLINE float __uint2float_rn(unsigned x) { return (float)x; }

// ---- what ptx.cuh calls ---------------------------------------------------------------------------------------------
namespace sim {
SIM_INLINE float from_half(unsigned short h) { return sim_from_half(h); }
SIM_INLINE unsigned short to_half(float x) { return sim_to_half(x); }
SIM_INLINE unsigned shared_address(const void* p) { return sim_shared_address(p); }
SIM_INLINE void cp_async(unsigned to, const void* from, int bytes) { sim_cp_async(to, from, bytes); }
SIM_INLINE void cp_async_commit() { sim_cp_async_commit(); }
SIM_INLINE void cp_async_wait(int keep) { sim_cp_async_wait(keep); }
SIM_INLINE void ldmatrix_x4(unsigned (&r)[4], unsigned row, bool transposed) { sim_ldmatrix_x4(r, row, transposed); }
SIM_INLINE void mma_m16n8k16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                             float (*number)(unsigned short)) {
    sim_mma_m16n8k16(d, a, b, number);
}

// ---- run_kernel<kernel>::run(launch, pointers to the arguments): "" or what went wrong ------------------------------
template <int... I> struct Numbers {};
template <int N, int... I> struct Count : Count<N - 1, N - 1, I...> {};
template <int... I> struct Count<0, I...> { typedef Numbers<I...> type; };
template <class T> struct Plain { typedef T type; };
template <class T> struct Plain<const T> { typedef T type; };
}  // namespace sim

// The linker names the ends of a section, and of the library.
extern "C" char __start_cuda_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_cuda_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __ehdr_start[] __attribute__((weak, visibility("hidden")));
extern "C" char _end[] __attribute__((weak, visibility("hidden")));
namespace sim {
template <auto kernel> struct run_kernel;
template <class... Args, void (*kernel)(Args...)> struct run_kernel<kernel> {
    static const char* run(void* launch, void** arguments) {
        return sim_run(launch, thread, arguments, {__ehdr_start, _end, __start_cuda_shared, __stop_cuda_shared});
    }
    SIM_UNCHECKED static void thread(void* p) { call((void**)p, typename Count<sizeof...(Args)>::type()); }
    template <int... I> SIM_UNCHECKED static void call(void** p, Numbers<I...>) {
        kernel(*(typename Plain<Args>::type*)p[I]...);
    }
};
}  // namespace sim

// Kernels that go through arrays element by element: 16 bytes of each array at a time, in floats.
//
//     for (u64 i = first_pack<TYPE>(); i < n; i += all_packs<TYPE>()) {      // this thread's share of 0 .. n - 1
//         auto v = load(x, i, n, whole);                                     // elements i .. i + N - 1
//         for (int j = 0; j < v.N; j++) v.x[j] = f(v.x[j]);
//         store(out, i, n, whole, v);
//     }
//
// N = 4 of float, 8 of bf16 and f16. Neighbouring threads take neighbouring packs, so a warp moves 512 bytes in one
// instruction; with 2048 threads on a multiprocessor 32 KB are under way, which is what keeps the memory busy. Beyond
// n, load gives 0 and store stores nothing. whole = 0: some array does not lie at a multiple of 16 bytes, so elements
// go one by one. Either way a thread computes the same elements, so the bits do not depend on where the arrays lie.
#pragma once
#include "common.cuh"

template <class T> struct Floats {
    static constexpr int N = Pack<T>::N;
    float x[N];
};

template <class T> DEVICE u64 first_pack() {
    return ((u64)blockIdx.x * blockDim.x + threadIdx.x) * Pack<T>::N;
}
template <class T> DEVICE u64 all_packs() { return (u64)gridDim.x * blockDim.x * Pack<T>::N; }

template <class T> DEVICE Floats<T> load(const T* x, u64 i, u64 n, int whole) {
    Floats<T> v;
    if (whole && i + v.N <= n) {
        Pack<T> pack = load16(x + i);
#pragma unroll
        for (int j = 0; j < v.N; j++) v.x[j] = to_float(pack.x[j]);
    } else {
#pragma unroll
        for (int j = 0; j < v.N; j++) v.x[j] = i + j < n ? to_float(x[i + j]) : 0.0f;
    }
    return v;
}

template <class T> DEVICE void store(T* x, u64 i, u64 n, int whole, Floats<T> v) {
    if (whole && i + v.N <= n) {
        Pack<T> pack;
#pragma unroll
        for (int j = 0; j < v.N; j++) pack.x[j] = from_float<T>(v.x[j]);
        store16(x + i, pack);
    } else {
#pragma unroll
        for (int j = 0; j < v.N; j++)
            if (i + j < n) x[i + j] = from_float<T>(v.x[j]);
    }
}

// The instructions that CUDA C++ has no name for, each behind a small function: asynchronous copies, ldmatrix, mma.
//
// On a GPU a function is one line of PTX; in the simulator (CUDA_SIMULATOR) it calls the CPU's version of the same.
// Kernels hold no PTX themselves. Source: "Parallel Thread Execution ISA", NVIDIA. sm_80 and later (mma, cp.async).
#pragma once
#include "common.cuh"

#ifdef CUDA_SIMULATOR
DEVICE u32 shared_address(const void* p) { return sim::shared_address(p); }
DEVICE void cp_async16(u32 to, const void* from, bool valid = true) { sim::cp_async(to, from, valid ? 16 : 0); }
DEVICE void cp_async_commit() { sim::cp_async_commit(); }
template <int N> DEVICE void cp_async_wait() { sim::cp_async_wait(N); }
DEVICE void ldmatrix_x4(u32 (&r)[4], u32 row) { sim::ldmatrix_x4(r, row, false); }
DEVICE void ldmatrix_x4_trans(u32 (&r)[4], u32 row) { sim::ldmatrix_x4(r, row, true); }
DEVICE float exp2_approx(float x) { return std::exp2(x); }
template <class T> DEVICE void mma_m16n8k16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    u32 b[2] = {b0, b1};
    sim::mma_m16n8k16(d, a, b, [](u16 bits) { return to_float(T{bits}); });
}
template <class T> DEVICE u32 pack2(float low, float high) {
    return from_float<T>(low).bits | (u32)from_float<T>(high).bits << 16;
}
#else

// Addresses of shared memory as these instructions take them: 32 bits.
DEVICE u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }

// 2^x in one instruction, to 2 ulp; subnormal results are 0.
DEVICE float exp2_approx(float x) { float y; asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800   // nvcc reads device code for the host, too
// 16 bytes from global to shared memory, past the registers; zeros where not valid (`from` must still be an address).
// Copies since the last commit are a group; wait<N> waits until at most the N newest groups of a thread are under way.
DEVICE void cp_async16(u32 to, const void* from, bool valid = true) {
    int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
DEVICE void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> DEVICE void cp_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

// Four 8 x 8 matrices of 16-bit numbers. Lane 8 m + i gives the address of row i of matrix m (16 bytes); then lane l
// holds of each matrix the two numbers (l / 4, 2 (l % 4)) and one right of it: a fragment of mma. _trans: (row, column)
// exchanged.
DEVICE void ldmatrix_x4(u32 (&r)[4], u32 row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(row) : "memory");
}
DEVICE void ldmatrix_x4_trans(u32 (&r)[4], u32 row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(row) : "memory");
}

// D (16 x 8, float) += A (16 x 16) B (16 x 8), a warp together. Of lane l, with g = l / 4 and t = l % 4:
//     a: rows g, g + 8 (a[0], a[1]) at columns 2t, 2t + 1; the same rows (a[2], a[3]) 8 columns on
//     b: column g, rows 2t, 2t + 1 (b0) and 8 rows on (b1)
//     d: row g, columns 2t, 2t + 1 (d[0], d[1]); row g + 8 (d[2], d[3])
template <class T> DEVICE void mma_m16n8k16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1);
#define MMA_M16N8K16(T, name)                                                                                       \
    template <> DEVICE void mma_m16n8k16<T>(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {                     \
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." name "." name ".f32 "                                 \
                     "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                              \
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                               \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                               \
    }
MMA_M16N8K16(bf16, "bf16")
MMA_M16N8K16(f16, "f16")

// Two floats, rounded, as one register: low in the lower half.
template <class T> DEVICE u32 pack2(float low, float high);
template <> DEVICE u32 pack2<bf16>(float low, float high) {
    u32 r; asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low)); return r;
}
template <> DEVICE u32 pack2<f16>(float low, float high) {
    u32 r; asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low)); return r;
}
#endif
#endif

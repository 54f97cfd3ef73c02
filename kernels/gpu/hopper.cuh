// Hopper's instructions (sm_90a), each behind a small function: mbarrier, TMA, wgmma, setmaxnreg, named barriers.
//
//   mbarrier   8 bytes of shared memory. A phase ends when the arrivals it was initialised with and the bytes announced
//              have come; wait(parity) returns once the phase of this parity (0, 1, 0, ...) has ended.
//   TMA        one thread copies a box of a tensor; what lies outside the tensor arrives as zeros and is not stored.
//              With the 128-byte swizzle a box is 128 bytes wide, and the 16-byte chunk c of row r lies at chunk
//              c ^ r % 8: rows and columns of 8 numbers can then both be read without bank conflicts. Boxes begin at
//              multiples of 1024.
//   wgmma      a warpgroup (4 warps) multiplies from shared memory, asynchronously: fence, products, commit, wait.
//
// What ordinary stores wrote to shared memory, TMA and wgmma see only after fence_async_proxy() and a barrier.
// On a GPU a function is PTX; in the simulator it calls kernels/simulator/hopper.h.
// Source: "Parallel Thread Execution ISA", NVIDIA.
#pragma once
#include "ptx.cuh"

// Accumulators of wgmma, of lane (g = lane / 4, t = lane % 4) of warp w in the warpgroup:
//     d[4 j + 2 h + e] is row 16 w + g + 8 h, column 8 j + 2 t + e
// As mma.m16n8k16 has them: packed in pairs they are A fragments of the next product.

#ifdef CUDA_SIMULATOR
#include <hopper.h>
typedef sim::TensorMap TensorMap;
DEVICE void mbarrier_init(u32 barrier, int arrivals) { sim::mbarrier_init(barrier, arrivals); }
DEVICE void mbarrier_init_fence() { sim::mbarrier_init_fence(); }
DEVICE void mbarrier_arrive(u32 barrier) { sim::mbarrier_arrive(barrier); }
DEVICE void mbarrier_arrive_expect(u32 barrier, int bytes) { sim::mbarrier_arrive(barrier, bytes); }
DEVICE void mbarrier_wait(u32 barrier, u32 parity) { sim::mbarrier_wait(barrier, parity); }
DEVICE void tma_load(u32 to, const TensorMap* map, u32 barrier, int x, int y, int z) {
    sim::tma_load(to, map, barrier, 3, x, y, z, 0);
}
DEVICE void tma_load(u32 to, const TensorMap* map, u32 barrier, int x, int y, int z, int w) {
    sim::tma_load(to, map, barrier, 4, x, y, z, w);
}
DEVICE void bulk_load(u32 to, const void* from, u32 bytes, u32 barrier) { sim::bulk_load(to, from, bytes, barrier); }
DEVICE void tma_store(const TensorMap* map, u32 from, int x, int y, int z) {
    sim::tma_store(map, from, 3, x, y, z, 0, false);
}
DEVICE void tma_reduce_add(const TensorMap* map, u32 from, int x, int y, int z) {
    sim::tma_store(map, from, 3, x, y, z, 0, true);
}
DEVICE void bulk_commit() { sim::bulk_commit(); }
template <int N> DEVICE void bulk_wait_read() { sim::bulk_wait(N); }
template <int N> DEVICE void bulk_wait() { sim::bulk_wait(N); }
DEVICE void shared_store(u32 to, u32 x) { sim::shared_store(to, &x, 4); }
DEVICE void shared_store(u32 to, float2 x) { sim::shared_store(to, &x, 8); }
DEVICE void fence_async_proxy() { sim::fence_async_proxy(); }
DEVICE void wgmma_fence() { sim::wgmma_fence(); }
DEVICE void wgmma_commit() { sim::wgmma_commit(); }
template <int N> DEVICE void wgmma_wait() { sim::wgmma_wait(N); }
template <class T> constexpr bool is_bf16 = false;
template <> constexpr bool is_bf16<bf16> = true;
template <class T, int A_TRANSPOSED = 0, int B_TRANSPOSED = 0, int R>
DEVICE void wgmma_ss(float (&d)[R], u64 a, u64 b, bool add) {
    sim::wgmma(2 * R, is_bf16<T>, d, nullptr, a, b, add, A_TRANSPOSED, B_TRANSPOSED);
}
template <class T, int B_TRANSPOSED = 0, int R>
DEVICE void wgmma_rs(float (&d)[R], const u32 (&a)[4], u64 b, bool add) {
    sim::wgmma(2 * R, is_bf16<T>, d, a, 0, b, add, false, B_TRANSPOSED);
}
template <int N> DEVICE void registers_increase() {}
template <int N> DEVICE void registers_decrease() {}
DEVICE void named_barrier_sync(int id, int threads) { sim::named_barrier_sync(id, threads); }
DEVICE void named_barrier_arrive(int id, int threads) { sim::named_barrier_arrive(id, threads); }
#else

struct alignas(64) TensorMap { u64 opaque[16]; };   // a CUtensorMap; the kernel's parameter is const __grid_constant__

// ---- mbarrier ------------------------------------------------------------------------------------------------------
DEVICE void mbarrier_init(u32 barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// After the inits, before __syncthreads: TMA, too, sees the barriers.
DEVICE void mbarrier_init_fence() {
    asm volatile("fence.mbarrier_init.release.cluster;\n fence.proxy.async.shared::cta;" ::: "memory");
}
DEVICE void mbarrier_arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// Arrives, and announces bytes that TMA will bring in this phase.
DEVICE void mbarrier_arrive_expect(u32 barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
DEVICE void mbarrier_wait(u32 barrier, u32 parity) {
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra again;\n"
                 "}" ::"r"(barrier), "r"(parity) : "memory");
}

// ---- TMA: coordinates (x, y, z, w) of the box's corner, in elements, innermost first -------------------------------
DEVICE void tma_load(u32 to, const TensorMap* map, u32 barrier, int x, int y, int z) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4, %5}], [%2];"
                 ::"r"(to), "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z) : "memory");
}
DEVICE void tma_load(u32 to, const TensorMap* map, u32 barrier, int x, int y, int z, int w) {
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4, %5, %6}], [%2];"
                 ::"r"(to), "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(w) : "memory");
}
// Consecutive bytes, without a tensor map; addresses and size are multiples of 16.
DEVICE void bulk_load(u32 to, const void* from, u32 bytes, u32 barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                 ::"r"(to), "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(barrier) : "memory");
}
DEVICE void tma_store(const TensorMap* map, u32 from, int x, int y, int z) {
    asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4}], [%1];"
                 ::"l"(map), "r"(from), "r"(x), "r"(y), "r"(z) : "memory");
}
// Adds the box to the tensor (float32), in no fixed order among blocks.
DEVICE void tma_reduce_add(const TensorMap* map, u32 from, int x, int y, int z) {
    asm volatile("cp.reduce.async.bulk.tensor.3d.global.shared::cta.add.tile.bulk_group [%0, {%2, %3, %4}], [%1];"
                 ::"l"(map), "r"(from), "r"(x), "r"(y), "r"(z) : "memory");
}
// This thread's stores since the last commit are a group. wait_read<N>: shared memory of all but the N newest groups
// may be written again; wait<N>: their results are in place.
DEVICE void bulk_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
template <int N> DEVICE void bulk_wait_read() { asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory"); }
template <int N> DEVICE void bulk_wait() { asm volatile("cp.async.bulk.wait_group %0;" ::"n"(N) : "memory"); }

// ---- ordinary stores by 32-bit address -----------------------------------------------------------------------------
DEVICE void shared_store(u32 to, u32 x) { asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(x) : "memory"); }
DEVICE void shared_store(u32 to, float2 x) {
    asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(to), "f"(x.x), "f"(x.y) : "memory");
}
DEVICE void fence_async_proxy() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// ---- wgmma ---------------------------------------------------------------------------------------------------------
// fence: before the first product, and after registers that products use were read or written. wait<N>: all but the N
// newest groups are done; until then accumulators are not to be touched.
DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> DEVICE void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }

// D (64 x N) = A (64 x 16) B (16 x N), + D where `add`; N is twice the number of accumulators: 64, 128 or 176. wgmma_ss
// has A in shared memory, wgmma_rs in registers. A and B are K-major: the 16 numbers that are multiplied and summed lie
// side by side. With *_TRANSPOSED they lie under each other, M or N side by side. a, b: descriptors of the operands in
// shared memory.
//
// The macros below are operand lists: text "%0, %1, ..." and constraints of 32, 64 or 88 accumulators, R; p0, p1, ...
// are the numbers of the operands that follow them.
#define TEXT10(x) "%" #x "0, %" #x "1, %" #x "2, %" #x "3, %" #x "4, %" #x "5, %" #x "6, %" #x "7, %" #x "8, %" #x "9, "
#define TEXT30 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, " TEXT10(1) TEXT10(2)
#define TEXT_32 TEXT30 "%30, %31"
#define TEXT60 TEXT30 TEXT10(3) TEXT10(4) TEXT10(5)
#define TEXT_64 TEXT60 "%60, %61, %62, %63"
#define TEXT_88 TEXT60 TEXT10(6) TEXT10(7) "%80, %81, %82, %83, %84, %85, %86, %87"
#define OUT4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define OUT16(i) OUT4(i), OUT4(i + 4), OUT4(i + 8), OUT4(i + 12)
#define OUT_32 OUT16(0), OUT16(16)
#define OUT_64 OUT_32, OUT16(32), OUT16(48)
#define OUT_88 OUT_64, OUT16(64), OUT4(80), OUT4(84)

#define WGMMA(T, R, N, p0, p1, p2, p3, p4, p5, p6)                                                                     \
    template <int A_TRANSPOSED, int B_TRANSPOSED>                                                                      \
    DEVICE void wgmma_ss_of(T, float (&d)[R], u64 a, u64 b, int add) {                                                 \
        asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %" #p2 ", 0;\n"                                             \
                     "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." #T "." #T " {" TEXT_##R "}, "                   \
                     "%" #p0 ", %" #p1 ", add, 1, 1, %" #p3 ", %" #p4 ";\n}"                                           \
                     : OUT_##R : "l"(a), "l"(b), "r"(add), "n"(A_TRANSPOSED), "n"(B_TRANSPOSED));                      \
    }                                                                                                                  \
    template <int B_TRANSPOSED>                                                                                        \
    DEVICE void wgmma_rs_of(T, float (&d)[R], const u32 (&a)[4], u64 b, int add) {                                     \
        asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %" #p5 ", 0;\n"                                             \
                     "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." #T "." #T " {" TEXT_##R "}, "                   \
                     "{%" #p0 ", %" #p1 ", %" #p2 ", %" #p3 "}, %" #p4 ", add, 1, 1, %" #p6 ";\n}"                     \
                     : OUT_##R : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(B_TRANSPOSED));     \
    }
WGMMA(bf16, 32, 64, 32, 33, 34, 35, 36, 37, 38)
WGMMA(bf16, 64, 128, 64, 65, 66, 67, 68, 69, 70)
WGMMA(bf16, 88, 176, 88, 89, 90, 91, 92, 93, 94)
WGMMA(f16, 32, 64, 32, 33, 34, 35, 36, 37, 38)
WGMMA(f16, 64, 128, 64, 65, 66, 67, 68, 69, 70)
WGMMA(f16, 88, 176, 88, 89, 90, 91, 92, 93, 94)

template <class T, int A_TRANSPOSED = 0, int B_TRANSPOSED = 0, int R>
DEVICE void wgmma_ss(float (&d)[R], u64 a, u64 b, bool add) {
    wgmma_ss_of<A_TRANSPOSED, B_TRANSPOSED>(T(), d, a, b, add);
}
template <class T, int B_TRANSPOSED = 0, int R>
DEVICE void wgmma_rs(float (&d)[R], const u32 (&a)[4], u64 b, bool add) {
    wgmma_rs_of<B_TRANSPOSED>(T(), d, a, b, add);
}

// ---- registers and barriers ----------------------------------------------------------------------------------------
// All warps of a warpgroup together: from now on each of its threads has N registers (a multiple of 8).
template <int N> DEVICE void registers_increase() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N)); }
template <int N> DEVICE void registers_decrease() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N)); }

// Barriers 1 to 15 (__syncthreads is 0): open when so many threads have come, whole warps, by sync or by arrive, which
// does not wait.
DEVICE void named_barrier_sync(int id, int threads) {
    asm volatile("barrier.cta.sync.aligned %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
DEVICE void named_barrier_arrive(int id, int threads) {
    asm volatile("barrier.cta.arrive.aligned %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
#endif

// An operand with 128-byte swizzle at `address`: 8 rows of 128 bytes are 1024 bytes, and such groups follow each other.
// Steps along K inside the 128 bytes are added to the address. Transposed operands wider than 64 numbers consist of
// panels of 64, `panel` bytes apart.
DEVICE u64 descriptor(u32 address, u32 panel = 0) {
    return (u64)(address >> 4 & 0x3fff) | (u64)(panel >> 4) << 16 | (u64)(1024 >> 4) << 32 | 1ull << 62;
}
// The address of byte x (0..127) of row r in a panel of 128-byte rows, swizzled as TMA and wgmma expect.
DEVICE u32 swizzled_address(u32 panel, u32 r, u32 x) { return panel + r * 128 + (x ^ (r & 7) << 4); }

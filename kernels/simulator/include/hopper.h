// What hopper.cuh calls: see ../hopper.h for what each does.
#pragma once
#include "api.h"
namespace sim {
struct alignas(64) TensorMap { unsigned long long opaque[16]; };
SIM_INLINE void mbarrier_init(unsigned address, int arrivals) { sim_mbarrier_init(address, arrivals); }
SIM_INLINE void mbarrier_init_fence() { sim_mbarrier_init_fence(); }
SIM_INLINE void mbarrier_arrive(unsigned address, int bytes = 0) { sim_mbarrier_arrive(address, bytes); }
SIM_INLINE void mbarrier_wait(unsigned address, unsigned parity) { sim_mbarrier_wait(address, parity); }
SIM_INLINE void tma_load(unsigned to, const void* map, unsigned mbarrier, unsigned rank, int x, int y, int z, int w) {
    sim_tma_load(to, map, mbarrier, rank, x, y, z, w);
}
SIM_INLINE void bulk_load(unsigned to, const void* from, unsigned bytes, unsigned mbarrier) {
    sim_bulk_load(to, from, bytes, mbarrier);
}
SIM_INLINE void tma_store(const void* map, unsigned from, unsigned rank, int x, int y, int z, int w, bool add) {
    sim_tma_store(map, from, rank, x, y, z, w, add);
}
SIM_INLINE void bulk_commit() { sim_bulk_commit(); }
SIM_INLINE void bulk_wait(int keep) { sim_bulk_wait(keep); }
SIM_INLINE void shared_store(unsigned address, const void* from, unsigned bytes) {
    sim_shared_store(address, from, bytes);
}
SIM_INLINE void fence_async_proxy() { sim_fence_async_proxy(); }
SIM_INLINE void wgmma(int N, bool is_bf16, float* d, const unsigned* a, unsigned long long a_descriptor,
                      unsigned long long b_descriptor, bool add, bool a_transposed, bool b_transposed) {
    sim_wgmma(N, is_bf16, d, a, a_descriptor, b_descriptor, add, a_transposed, b_transposed);
}
SIM_INLINE void wgmma_fence() { sim_wgmma_fence(); }
SIM_INLINE void wgmma_commit() { sim_wgmma_commit(); }
SIM_INLINE void wgmma_wait(int keep) { sim_wgmma_wait(keep); }
SIM_INLINE void named_barrier_sync(int id, int threads) { sim_named_barrier_sync(id, threads); }
SIM_INLINE void named_barrier_arrive(int id, int threads) { sim_named_barrier_arrive(id, threads); }
}  // namespace sim

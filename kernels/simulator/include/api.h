// What a compiled kernel calls in the simulator's runtime: plain C, so that the kernel needs no other header.
#pragma once
#ifdef SIM_RUNTIME
#define SIM_CONST
#else
#define SIM_CONST const        // of one thread these never change; the runtime sets them when it goes on with a thread
#endif
struct uint3 { unsigned x, y, z; };
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
    constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
};

extern "C" {
extern SIM_CONST uint3 sim_thread_index, sim_block_index, sim_block_dim, sim_grid_dim;
extern SIM_CONST int sim_thread_number;           // of the thread in its block
extern unsigned char sim_arena[];                 // dynamic shared memory

// barriers and exchanges; `what` names the function in messages
void sim_syncthreads(const char* what);
int sim_syncthreads_or(int x), sim_syncthreads_and(int x), sim_syncthreads_count(int x);
void sim_syncwarp(unsigned mask);
void sim_shuffle(unsigned mask, const void* in, void* out, int bytes, int from, const char* what);
void sim_gather(unsigned mask, const void* in, void* out, int bytes, const char* what);   // out: 32 values
unsigned sim_ballot(unsigned mask, int x, const char* what);
unsigned sim_members(unsigned mask);              // its lanes that exist
void sim_atomic(void* p, int bytes);              // said before an atomic operation happens
void sim_threadfence(void);
void sim_trap(const char* message);

// ptx.cuh
unsigned sim_shared_address(const void* p);
void sim_cp_async(unsigned to, const void* from, int bytes);
void sim_cp_async_commit(void);
void sim_cp_async_wait(int keep);
void sim_ldmatrix_x4(unsigned* r, unsigned row, int transposed);
void sim_mma_m16n8k16(float* d, const unsigned* a, const unsigned* b, float (*number)(unsigned short));
float sim_from_half(unsigned short h);
unsigned short sim_to_half(float x);

// hopper.cuh; map: a TensorMap
void sim_mbarrier_init(unsigned address, int arrivals);
void sim_mbarrier_init_fence(void);
void sim_mbarrier_arrive(unsigned address, int bytes);
void sim_mbarrier_wait(unsigned address, unsigned parity);
void sim_tma_load(unsigned to, const void* map, unsigned mbarrier, unsigned rank, int x, int y, int z, int w);
void sim_bulk_load(unsigned to, const void* from, unsigned bytes, unsigned mbarrier);
void sim_tma_store(const void* map, unsigned from, unsigned rank, int x, int y, int z, int w, bool add);
void sim_bulk_commit(void);
void sim_bulk_wait(int keep);
void sim_shared_store(unsigned address, const void* from, unsigned bytes);
void sim_fence_async_proxy(void);
void sim_wgmma(int N, bool is_bf16, float* d, const unsigned* a, unsigned long long a_descriptor,
               unsigned long long b_descriptor, bool add, bool a_transposed, bool b_transposed);
void sim_wgmma_fence(void);
void sim_wgmma_commit(void);
void sim_wgmma_wait(int keep);
void sim_named_barrier_sync(int id, int threads);
void sim_named_barrier_arrive(int id, int threads);

// Runs a grid: body(arguments) is one thread. "" or what went wrong.
struct sim_Image {                                // of the compiled kernel, in memory
    char *begin, *end;                            // all of it
    char *shared_begin, *shared_end;              // static shared variables
};
const char* sim_run(void* launch, void (*body)(void*), void** arguments, struct sim_Image image);
}

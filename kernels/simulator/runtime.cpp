// The simulator's runtime: all of it, compiled once into a library that every compiled kernel uses.
#include "core.h"
#include "order.h"
#include "memory.h"
#include "sites.h"
#include "trace.h"
#include "warp.h"
#include "ampere.h"
#include "crash.h"
#include "launch.h"
#include "hopper.h"

// ---- what include/api.h declares ------------------------------------------------------------------------------------
// PLACE: where the kernel called from, for messages.
#define PLACE (sim::current->place = sim::place_of(__builtin_return_address(0)))
#define HOPPER_PLACE (sim::hopper_used = true, PLACE)
extern "C" {
uint3 sim_thread_index, sim_block_index, sim_block_dim, sim_grid_dim;
int sim_thread_number;

void sim_syncthreads(const char* what) {
    PLACE;
    sim::say_step(what, "lane 0 has come to a barrier of the whole block");
    sim::barrier(0, sim::live, what);
}
int sim_syncthreads_or(int x) { PLACE; return sim::syncthreads_votes(x, "__syncthreads_or") != 0; }
int sim_syncthreads_and(int x) { PLACE; return sim::syncthreads_votes(!x, "__syncthreads_and") == 0; }
int sim_syncthreads_count(int x) { PLACE; return sim::syncthreads_votes(x, "__syncthreads_count"); }
void sim_syncwarp(unsigned mask) {
    PLACE;
    sim::say_step("__syncwarp", "lane 0 waits for the lanes of its warp");
    sim::meet_warp(mask, nullptr, "__syncwarp", [](void**) {}); }
void sim_shuffle(unsigned mask, const void* in, void* out, int bytes, int from, const char* what) {
    PLACE;
    sim::shuffle_lanes(mask, in, out, bytes, from, what);
    if (!sim::traced_lane()) return;
    sim::step(what);
    if (bytes != 4) return;
    sim::say("    lane 0 gives %.4g and gets %.4g from lane %d\n", *(const float*)in, *(float*)out, from);
}
void sim_gather(unsigned mask, const void* in, void* out, int bytes, const char* what) {
    PLACE;
    sim::gather_lanes(mask, in, out, bytes, what);
}
unsigned sim_ballot(unsigned mask, int x, const char* what) { PLACE; return sim::ballot(mask, x, what); }
unsigned sim_members(unsigned mask) { return sim::existing(mask); }
void sim_atomic(void* p, int bytes) {
    PLACE;
    if (sim::checking) sim::atomic_access(p, bytes);
}
void sim_threadfence() { sim::current->fenced = true; }
void sim_trap(const char* message) {
    PLACE;
    sim::fail(message);
    sim::check_failure();
}

unsigned sim_shared_address(const void* p) { PLACE; return sim::shared_address(p); }
void sim_cp_async(unsigned to, const void* from, int bytes) { PLACE; sim::cp_async(to, from, bytes); }
void sim_cp_async_commit() { PLACE; sim::cp_async_commit(); }
void sim_cp_async_wait(int keep) { PLACE; sim::cp_async_wait(keep); }
void sim_ldmatrix_x4(unsigned* r, unsigned row, int transposed) { PLACE; sim::ldmatrix_x4(r, row, transposed); }
void sim_mma_m16n8k16(float* d, const unsigned* a, const unsigned* b, float (*number)(unsigned short)) {
    PLACE;
    sim::mma_m16n8k16(d, a, b, number);
}
float sim_from_half(unsigned short h) { return sim::from_half(h); }
unsigned short sim_to_half(float x) { return sim::to_half(x); }

void sim_mbarrier_init(unsigned address, int arrivals) {
    HOPPER_PLACE;
    sim::say_step("mbarrier.init", "an mbarrier of %d arrivals at shared address %u", arrivals, address);
    sim::mbarrier_init(address, arrivals);
}
void sim_mbarrier_init_fence() { HOPPER_PLACE; sim::mbarrier_init_fence(); }
void sim_mbarrier_arrive(unsigned address, int bytes) {
    HOPPER_PLACE;
    sim::say_step("mbarrier.arrive", "at %u; %d bytes are announced that TMA will bring", address, bytes);
    sim::mbarrier_arrive(address, bytes);
}
void sim_mbarrier_wait(unsigned address, unsigned parity) {
    HOPPER_PLACE;
    sim::say_step("mbarrier.wait", "at %u, until its phase of parity %u has ended", address, parity);
    sim::count_meeting("mbarrier.wait");
    sim::mbarrier_wait(address, parity);
}
void sim_tma_load(unsigned to, const void* map, unsigned mbarrier, unsigned rank, int x, int y, int z, int w) {
    HOPPER_PLACE;
    sim::say_step("TMA load", "the box at (%d, %d, %d, %d) of a tensor to shared address %u; mbarrier %u counts bytes",
                  x, y, z, w, to, mbarrier);
    sim::tma_load(to, (const sim::TensorMap*)map, mbarrier, rank, x, y, z, w);
}
void sim_bulk_load(unsigned to, const void* from, unsigned bytes, unsigned mbarrier) {
    HOPPER_PLACE;
    sim::bulk_load(to, from, bytes, mbarrier);
}
void sim_tma_store(const void* map, unsigned from, unsigned rank, int x, int y, int z, int w, bool add) {
    HOPPER_PLACE;
    const char* what = add ? "TMA reduce" : "TMA store";
    sim::say_step(what, "shared address %u to the box at (%d, %d, %d, %d) of a tensor", from, x, y, z, w);
    sim::tma_store((const sim::TensorMap*)map, from, rank, x, y, z, w, add);
}
void sim_bulk_commit() { HOPPER_PLACE; sim::bulk_commit(); }
void sim_bulk_wait(int keep) { HOPPER_PLACE; sim::bulk_wait(keep); }
void sim_shared_store(unsigned address, const void* from, unsigned bytes) {
    HOPPER_PLACE;
    sim::shared_store(address, from, bytes);
}
void sim_fence_async_proxy() { HOPPER_PLACE; sim::fence_async_proxy(); }
void sim_wgmma(int N, bool is_bf16, float* d, const unsigned* a, unsigned long long a_descriptor,
               unsigned long long b_descriptor, bool add, bool a_transposed, bool b_transposed) {
    HOPPER_PLACE;
    sim::say_step("wgmma", "D (64 x %d) %s A (64 x 16, %s) B (16 x %d, shared memory), 128 threads together, later", N,
                  add ? "+=" : "=", a ? "registers" : "shared memory", N);
    sim::wgmma(N, is_bf16, d, a, a_descriptor, b_descriptor, add, a_transposed, b_transposed);
}
void sim_wgmma_fence() { HOPPER_PLACE; sim::wgmma_fence(); }
void sim_wgmma_commit() {
    HOPPER_PLACE;
    sim::say_step("wgmma.commit_group", "the products since the last one are a group");
    sim::wgmma_commit();
}
void sim_wgmma_wait(int keep) {
    HOPPER_PLACE;
    sim::say_step("wgmma.wait_group", "until at most %d groups are under way; then their D may be read", keep);
    sim::wgmma_wait(keep);
}
void sim_named_barrier_sync(int id, int threads) {
    HOPPER_PLACE;
    sim::say_step("bar.sync", "named barrier %d, of %d threads", id, threads);
    sim::named_barrier_sync(id, threads);
}
void sim_named_barrier_arrive(int id, int threads) { HOPPER_PLACE; sim::named_barrier_arrive(id, threads); }

const char* sim_run(void* launch, void (*body)(void*), void** arguments, sim_Image image) {
    sim::image_begin = image.begin, sim::image_end = image.end;
    sim::static_begin = image.shared_begin, sim::static_end = image.shared_end;
    sim::kernel_body = body, sim::kernel_arguments = arguments;
    return sim::run_grid(*(const sim::Launch*)launch);
}
const char* sim_report() { return sim::write_report(); }
const char* sim_trace() { return sim::trace_text.c_str(); }
}

// Runs a CUDA kernel on the CPU, to prove it right without a GPU: one fiber per CUDA thread, one block at a time.
// A fiber runs until it must wait, so that a missing barrier shows at once: its thread runs ahead of all the others.
// `order` 1 lets the threads of a block start in reverse. Shared memory keeps what the last block left in it.
#pragma once
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#define __global__
#define __device__ static inline
#define __shared__ static

struct Dim { int x = 0, y = 0, z = 0; };
static Dim threadIdx, blockIdx, blockDim, gridDim;
using std::max;
using std::min;

static float __int_as_float(int bits) { float x; std::memcpy(&x, &bits, 4); return x; }

namespace sim {
struct Group { int members = 0, arrived = 0; long turn = 0; };  // those who meet at one barrier
struct Fiber { ucontext_t context; std::vector<char> stack; bool done; };

static std::vector<Fiber> fibers;
static std::vector<Group> groups;  // 0: the block; 1 + w: warp w
static ucontext_t scheduler;
static int current;
static std::function<void()> body;
static float lanes[64][32];

static void wait(Group& group) {
    long turn = group.turn;
    if (++group.arrived == group.members) { group.arrived = 0; group.turn++; return; }
    while (group.turn == turn) swapcontext(&fibers[current].context, &scheduler);
}
static void leave(Group& group) {  // a thread that has returned is not waited for
    if (--group.members == group.arrived && group.members) { group.arrived = 0; group.turn++; }
}
static void entry() {
    body();
    leave(groups[0]);
    leave(groups[1 + current / 32]);
    fibers[current].done = true;
    swapcontext(&fibers[current].context, &scheduler);
}
static void run_block(int threads, int order) {
    fibers.resize(threads);
    groups.assign(1 + (threads + 31) / 32, Group());
    for (int t = 0; t < threads; t++) {
        Fiber& f = fibers[t];
        f.stack.resize(64 << 10);
        f.done = false;
        getcontext(&f.context);
        f.context.uc_stack.ss_sp = f.stack.data();
        f.context.uc_stack.ss_size = f.stack.size();
        makecontext(&f.context, entry, 0);
        groups[0].members++;
        groups[1 + t / 32].members++;
    }
    for (bool alive = true, moved = true; alive;) {
        alive = false;
        long before = 0, after = 0;
        for (Group& g : groups) before += g.turn + g.arrived + 2 * g.members;
        bool finished = false;
        for (int n = 0; n < threads; n++) {
            current = order ? threads - 1 - n : n;
            if (fibers[current].done) continue;
            threadIdx.x = current;
            swapcontext(&scheduler, &fibers[current].context);
            finished |= fibers[current].done;
            alive |= !fibers[current].done;
        }
        for (Group& g : groups) after += g.turn + g.arrived + 2 * g.members;
        if (alive && !finished && before == after && !moved) std::abort();  // a deadlock: everybody waits
        moved = finished || before != after;
    }
}

// launch<kernel>::run(grid, threads, order, arguments of the kernel...)
template <auto kernel> struct launch;
template <class... Args, void (*kernel)(Args...)> struct launch<kernel> {
    static void run(int grid, int threads, int order, Args... args) {
        gridDim.x = grid;
        blockDim.x = threads;
        body = [=] { kernel(args...); };
        for (blockIdx.x = 0; blockIdx.x < grid; blockIdx.x++) run_block(threads, order);
    }
};
}  // namespace sim

static void __syncthreads() { sim::wait(sim::groups[0]); }
static void __syncwarp(unsigned = 0xffffffffu) { sim::wait(sim::groups[1 + threadIdx.x / 32]); }
static float __shfl_xor_sync(unsigned mask, float x, int step) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    sim::lanes[warp][lane] = x;
    __syncwarp(mask);
    float other = sim::lanes[warp][lane ^ step];
    __syncwarp(mask);
    return other;
}

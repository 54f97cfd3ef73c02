// The simulator's core: runs a CUDA kernel on the CPU, one block at a time, one fiber per CUDA thread.
//
// A fiber runs until it must wait: at a barrier, a shuffle, an mbarrier. Which fiber goes on is drawn from `seed`, and
// now and then whole warps are held back while others run ahead, so that a missing barrier shows. Collectives
// (shuffles, ldmatrix, mma, wgmma) execute once, when the last lane has arrived, and read the other lanes' registers
// through pointers into their suspended stacks. Shared memory holds NaN (all bits set) when a block begins.
//
//     Meeting            threads that wait for each other: a barrier, or a collective with its arguments
//     meet(...)          the current thread arrives; the last one executes
//     yield(...)         let others run; the text says what for, in case all wait: a deadlock
//     fail(...)          an error of the kernel: the launch ends and reports it, with the thread and its place
//
// All of this is compiled once (runtime.cpp). A kernel sees include/cuda.h and calls what include/api.h declares.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <algorithm>
#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

#define SIM_RUNTIME
#include "include/api.h"
#include "fiber.h"

namespace sim {
typedef uint8_t u8; typedef uint16_t u16; typedef uint32_t u32; typedef uint64_t u64;

constexpr u32 ARENA = 232 * 1024;                 // dynamic shared memory: at most 227 KB on any GPU
}
extern "C" { alignas(1024) unsigned char sim_arena[sim::ARENA]; }

namespace sim {
static constexpr u8* arena = sim_arena;

struct Copy { u32 to; const void* from; int bytes; };          // a cp.async under way
struct Clock;                                     // see order.h
struct Arrival { u16 thread; bool waits; u32 time; };
struct Meeting {
    int arrived = 0, members = 0;
    u64 turn = 0;                                 // how often it has taken place
    bool complete = false;                        // because others have returned: one of those who wait executes
    u32 lanes = 0; int warp = 0;                  // of a meeting of a warp
    const char* what = "";
    void* arguments[128];
    std::vector<Arrival> who;                     // kept while memory is checked
};
struct Thread {
    Fiber fiber;
    uint3 index;                                  // threadIdx
    int number = 0;
    bool done = false;
    bool fenced = false;                          // a __threadfence since its last atomic
    u32 place = 0;                                // where in the kernel's code it called the simulator
    const char* waits = "";                       // what for
    const Meeting* at = nullptr; u64 turn = 0;    // not resumed before this meeting has taken place
    std::vector<Copy> open;                       // cp.async since the last commit
    std::deque<std::vector<Copy>> groups;         // committed ones
    Clock* clock = nullptr;
};

struct Counters { u64 bank_conflicts, ldmatrix, mma, cp_async, wgmma, tma, barriers; };
static Counters count;
static std::vector<std::pair<const char*, u64>> meetings;         // how often each kind of meeting took place

#define grid_dim sim_grid_dim
#define block_dim sim_block_dim
#define block_index sim_block_index
static std::vector<Thread> threads;
static std::vector<std::vector<std::pair<u32, Meeting>>> warps;   // of each warp, the meetings of its masks
static Meeting barriers[16];                      // __syncthreads is 0; named barriers
static Thread* current;
static Fiber scheduler;
static u64 progress;                              // grows whenever something happens: if it does not, nobody can go on
static int live;                                  // threads of this block that have not returned
static int late;                                  // 1: copies as late as allowed; 2: wgmma too
static bool checking;                             // memory accesses are checked
static std::string error;
static char *image_begin, *image_end;             // the compiled kernel
static char *static_begin, *static_end;           // its static shared variables

static u64 random_state;
static inline u32 random_below(u32 n) {           // xorshift64*
    random_state ^= random_state >> 12, random_state ^= random_state << 25, random_state ^= random_state >> 27;
    return (u32)((random_state * 2685821657736338717ull) >> 33) % n;
}
template <class T> static void shuffle(std::vector<T>& x) {
    for (size_t i = x.size(); i > 1; i--) std::swap(x[i - 1], x[random_below((u32)i)]);
}

// Places in the kernel's code are offsets in its image; module.py turns "@{1a2b}" into " at softmax.cu:41".
static inline u32 place_of(const void* p) { return (u32)((char*)p - image_begin); }
static std::string at_place(u32 place) {
    char text[32];
    snprintf(text, sizeof text, "@{%x}", place);
    return place ? text : "";
}
static std::string triple(uint3 i) {
    return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")";
}
static std::string block_name(uint3 b) { return "block " + triple(b); }
static std::string thread_name(const Thread& t) {
    return "thread " + std::to_string(t.number) + (block_dim.y * block_dim.z > 1 ? " " + triple(t.index) : "");
}
static void fail(const std::string& message) {
    if (!error.empty()) return;
    error = message;
    if (current)
        error += " [" + block_name(block_index) + ", " + thread_name(*current) + at_place(current->place) + "]";
}
static void yield(const char* what) {
    Thread* me = current;
    me->waits = what;
    switch_fiber(me->fiber, scheduler);
    if (!error.empty()) switch_fiber(me->fiber, scheduler);       // the launch has failed: this fiber is never resumed
}
static void check_failure() { if (!error.empty() && current) yield("the end"); }

static inline int lane() { return current->number % 32; }
static inline int warp_number() { return current->number / 32; }

static void count_meeting(const char* what) {
    for (auto& m : meetings) if (m.first == what) { m.second++; return; }
    meetings.push_back({what, 1});
}
static u32 arrival_time();                        // order.h
static void order_arrivals(Meeting& m);

// What happens before what: a barrier orders memory, the exchange of registers (a shuffle, mma) does not.
enum Orders { EXCHANGE, ORDERS_MEMORY };

// Arrive; the last of `members` runs execute(arguments of all), then all go on.
template <class F>
static void meet(Meeting& m, int members, int slot, void* argument, const char* what, F execute,
                 Orders orders = ORDERS_MEMORY) {
    if (m.arrived && m.what != what && strcmp(m.what, what))
        fail(std::string("divergent collective: some threads are at ") + m.what + ", others at " + what);
    check_failure();
    m.what = what;
    if (slot >= 0) m.arguments[slot] = argument;
    if (checking && orders) m.who.push_back({(u16)current->number, true, arrival_time()});
    u64 turn = m.turn;
    progress++;
    m.complete = ++m.arrived >= (m.members = members);
    current->at = &m, current->turn = turn;
    while (m.turn == turn) {
        if (!m.complete) { yield(what); continue; }
        count_meeting(what);
        execute(m.arguments);
        check_failure();
        if (checking && orders) order_arrivals(m);
        m.arrived = 0, m.turn++, m.complete = false;
    }
    current->at = nullptr;
}

// The meeting of those lanes of this warp that are in `mask`.
static Meeting& warp_meeting(u32 mask) {
    auto& meetings = warps[warp_number()];
    for (auto& m : meetings) if (m.first == mask) return m.second;
    if (meetings.capacity() == 0) meetings.reserve(64);           // pointers to meetings are held by waiting threads
    if (meetings.size() == 64) { fail("more than 64 masks in one warp"); check_failure(); }
    meetings.push_back({mask, Meeting()});
    meetings.back().second.lanes = mask, meetings.back().second.warp = warp_number();
    return meetings.back().second;
}
static u32 live_lanes[32];                        // of each warp, those that have not returned
static u32 existing(u32 mask) { return mask & live_lanes[warp_number()]; }
template <class F>
static void meet_warp(u32 mask, void* argument, const char* what, F execute, Orders orders = ORDERS_MEMORY) {
    if (!(mask >> lane() & 1)) { fail(std::string(what) + ": the calling lane is not in the mask"); check_failure(); }
    meet(warp_meeting(mask), __builtin_popcount(existing(mask)), lane(), argument, what, execute, orders);
}

static void barrier(int id, int count_threads, const char* what = "__syncthreads") {
    meet(barriers[id], count_threads, -1, nullptr, what, [](void**) { count.barriers++; });
}

// ---- shared memory by its 32-bit address: dynamic first, static behind it -------------------------------------------
static u32 dynamic_bytes;
static inline u32 static_bytes() { return (u32)(static_end - static_begin); }
static u32 shared_address(const void* p) {
    const u8* b = (const u8*)p;
    if (b >= arena && b <= arena + ARENA) return (u32)(b - arena);
    u8* first = (u8*)static_begin;
    if (b >= first && b < (u8*)static_end) return ARENA + (u32)(b - first);
    fail("an address that is not of shared memory is used as one");
    check_failure();
    return 0;
}
static u8* shared(u32 address, u32 bytes, u32 alignment, const char* what) {
    bool dynamic = address < ARENA;
    u32 end = dynamic ? dynamic_bytes : ARENA + static_bytes();
    if (address % alignment || (u64)address + bytes > end) {
        std::string text = std::string(what) + ": " + std::to_string(bytes) + " bytes at shared address ";
        text += std::to_string(address);
        if ((u64)address + bytes <= end) fail(text + ", which is not a multiple of " + std::to_string(alignment));
        else fail(text + " are outside of shared memory (dynamic: " + std::to_string(dynamic_bytes) + " bytes)");
        check_failure();
    }
    return dynamic ? arena + address : (u8*)static_begin + (address - ARENA);
}

// ---- numbers --------------------------------------------------------------------------------------------------------
static float from_half(u16 h) {
    u32 sign = (u32)(h >> 15) << 31, exponent = h >> 10 & 31, fraction = h & 1023;
    if (exponent == 0) return std::ldexp(sign ? -(float)fraction : (float)fraction, -24);
    u32 bits = sign | (exponent == 31 ? 255 : exponent + 112) << 23 | fraction << 13;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
static u16 to_half(float x) {                     // rounds to nearest, ties to even
    u32 u;
    memcpy(&u, &x, 4);
    u16 sign = (u16)(u >> 16 & 0x8000);
    u &= 0x7fffffff;
    if (u > 0x7f800000) return sign | 0x7e00;                     // NaN
    if (u >= 0x477ff000) return sign | 0x7c00;                    // 65520 and more: infinity
    if (u < 0x38800000) return sign | (u16)std::nearbyint(std::fabs(x) * 16777216.0f);   // multiples of 2^-24
    return sign | (u16)((u + 0xfff + (u >> 13 & 1) - 0x38000000) >> 13);
}
}  // namespace sim

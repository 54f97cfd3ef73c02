// Checks every access of a kernel to memory, when it is compiled with check=True.
//
// The compiler's -fsanitize=thread puts a call before each access; its library is not used: the calls are answered at
// the end of this file. An address must lie in an array that the launch was given, in shared memory, or on the thread's
// own stack. For every byte of arrays and shared memory a Cell remembers who wrote it last and who read it since: an
// access by a thread that no barrier stands between is a race. Shared memory must have been written before it is read;
// global memory must not hold the pattern that fresh.py fills new arrays with.
#pragma once
namespace sim {
struct Access {
    u32 time = 0;                                 // 0: none
    u32 place = 0;
    u16 thread = 0;
    bool atomic = false, split = false;           // split: this word's bytes have cells of their own
};
struct Cell { Access write, read, read2; };
struct Region {
    u64 begin = 0, end = 0;
    Cell *words = nullptr, *bytes = nullptr;      // of each 4 bytes; of each byte, where words are written in parts
    u8* written = nullptr;                        // of shared memory: 1 for bytes that have been written
    int argument = -1;
    bool read_only = false;
    u32 format = 0;                               // of the elements: 1 bf16, 2 f16, 3 float, 4 int; 0 something else
    u64 bytes_read = 0, bytes_written = 0;
    size_t capacity = 0;
};
constexpr u32 POISON = 0x7fe57fe5;                // a NaN as float, and both halves as bf16 and f16
static Region dynamic_region, static_region;
static std::vector<Region> regions;               // the launch's arrays, by address
static size_t last_region;

enum Kind { READ, WRITE, ATOMIC };
static const char* const KIND[] = {"reads", "writes", "changes (atomically)"};

static void prepare_region(Region& r, u64 begin, u64 end, bool is_shared) {
    size_t n = end - begin + 8;
    r.begin = begin, r.end = end, r.bytes_read = r.bytes_written = 0;
    if (r.capacity < n || !is_shared) {           // zeroed pages; only those that are used take memory
        free(r.words), free(r.bytes);
        r.words = (Cell*)calloc(n / 4 + 1, sizeof(Cell)), r.bytes = (Cell*)calloc(n, sizeof(Cell));
        if (is_shared) r.written = (u8*)realloc(r.written, n);
        r.capacity = n;
    }
}
static void release_region(Region& r) { free(r.words), free(r.bytes), free(r.written), r = Region(); }

// ---- order between blocks: none, but __threadfence and an atomic come before what follows later atomics ------------
static std::vector<u32> block_starts, block_released;             // of the blocks so far
static u32 block_acquired;
static bool released_by_block(u32 time) {
    size_t b = std::upper_bound(block_starts.begin(), block_starts.end(), time) - block_starts.begin() - 1;
    return block_released[b] >= time && block_released[b] <= block_acquired;
}
static uint3 block_of(u32 time) {
    size_t b = std::upper_bound(block_starts.begin(), block_starts.end(), time) - block_starts.begin() - 1;
    extern std::vector<uint3> blocks_in_order;
    return blocks_in_order[b];
}
std::vector<uint3> blocks_in_order;

static inline bool present(const Access& a, bool is_shared) { return a.time && (!is_shared || a.time >= block_began); }
static inline bool ordered(const Access& a, const Thread& t) {
    if (a.time < block_began) return released_by_block(a.time);
    return a.thread == t.number || t.clock->seen[a.thread] >= a.time;
}

static std::string region_name(const Region& r, u64 address) {
    if (&r == &dynamic_region) return "dynamic shared memory + " + std::to_string(address - r.begin);
    if (&r == &static_region) {
        char text[64];                            // module.py turns "${offset}" into the variable's name
        snprintf(text, sizeof text, "${%x}", (u32)((char*)address - image_begin));
        return std::string("static shared memory") + text;
    }
    return "argument " + std::to_string(r.argument) + " + " + std::to_string(address - r.begin) + " bytes";
}
__attribute__((noinline))
static void race(Region& r, u64 address, Kind kind, bool before_wrote, const Access& a, const Thread& t) {
    bool other_block = a.time < block_began;
    std::string text = "race: " + thread_name(t) + " " + KIND[kind] + " " + region_name(r, address) +
                       at_place(t.place) + ", which ";
    Thread fake = Thread();
    fake.number = a.thread;
    if (!other_block) fake.index = threads[a.thread].index;
    text += other_block ? block_name(block_of(a.time)) + ", thread " + std::to_string(a.thread) : thread_name(fake);
    text += std::string(a.atomic ? " changed (atomically)" : before_wrote ? " wrote" : " read") + at_place(a.place);
    text += other_block ? "; nothing orders blocks of one launch" : ", with no barrier in between";
    fail(text);
    check_failure();
}

static inline void visit(Region& r, u64 address, Cell& c, Kind kind, Thread& t, u32 place, bool is_shared) {
    Access& w = c.write;
    if (present(w, is_shared) && !ordered(w, t) && !(kind == ATOMIC && w.atomic)) race(r, address, kind, true, w, t);
    if (kind == READ) {
        // The last reader, and before it one of another warp, else of another lane: enough to find a write with no
        // barrier after any of the reads.
        Access& a = c.read;
        bool same = a.thread == t.number && a.time >= block_began;
        if (!same && present(a, is_shared)) {
            bool far = a.time < block_began || a.thread / 32 != t.number / 32;
            bool keep = !far && present(c.read2, is_shared) && c.read2.time >= block_began &&
                        c.read2.thread / 32 != t.number / 32 && !ordered(c.read2, t);
            if (!keep) c.read2 = a;
        }
        a.time = now, a.place = place, a.thread = (u16)t.number;
        return;
    }
    if (present(c.read, is_shared) && !ordered(c.read, t)) race(r, address, kind, false, c.read, t);
    if (present(c.read2, is_shared) && !ordered(c.read2, t)) race(r, address, kind, false, c.read2, t);
    bool split = w.split;
    c = Cell();
    w.time = now, w.place = place, w.thread = (u16)t.number, w.atomic = kind == ATOMIC, w.split = split;
}

static void unwritten(Region& r, u64 address, Thread& t) {
    fail("uninitialised: " + thread_name(t) + " reads " + region_name(r, address) + at_place(t.place) +
         ", which nothing has written" +
         (&r == &dynamic_region || &r == &static_region ? " (or whose copy is still under way)" : ""));
    check_failure();
}

// One access of thread t, inside the region.
static void touch(Region& r, u64 address, u32 n, Kind kind, Thread& t, u32 place) {
    bool is_shared = r.written != nullptr;
    u64 first = address - r.begin, last = first + n;
    if (kind != READ && r.read_only) {
        fail("read-only: " + thread_name(t) + " writes " + region_name(r, address) + at_place(t.place));
        check_failure();
    }
    if (is_shared) {
        if (kind != WRITE)
            for (u64 i = first; i < last; i++) if (!r.written[i]) unwritten(r, r.begin + i, t);
        if (kind != READ) memset(r.written + first, 1, n);
    } else {
        if (kind != WRITE) {
            r.bytes_read += n;
            if (n == 2 && *(u16*)address == (u16)POISON) unwritten(r, address, t);
            if (n >= 4 && address % 4 == 0)
                for (u32 i = 0; i + 4 <= n; i += 4) if (*(u32*)(address + i) == POISON) unwritten(r, address + i, t);
        }
        if (kind != READ) r.bytes_written += n;
    }
    for (u64 word = first / 4; word * 4 < last; word++) {
        Cell& c = r.words[word];
        bool whole = word * 4 >= first && word * 4 + 4 <= last;
        if (whole && !c.write.split) { visit(r, r.begin + word * 4, c, kind, t, place, is_shared); continue; }
        Cell* parts = r.bytes + word * 4;
        if (!c.write.split) {
            for (int i = 0; i < 4; i++) parts[i] = c;
            c.write.split = true;
        }
        for (u64 i = std::max(first, word * 4); i < std::min(last, word * 4 + 4); i++)
            visit(r, r.begin + i, r.bytes[i], kind, t, place, is_shared);
        if (whole && kind == WRITE) c = parts[0], c.write.split = false;
    }
}

static bool beside_static_shared(u64 address) {
    return static_bytes() && address + 64 > static_region.begin && address < static_region.end + 4096;
}
static void outside(u64 address, u32 n, Kind kind, Thread& t) {
    std::string text = "out of bounds: " + thread_name(t) + " " + KIND[kind] + " " + std::to_string(n) + " bytes ";
    const Region* near = nullptr;
    u64 distance = ~0ull;
    for (const Region& r : regions) {
        u64 d = address >= r.end ? address - r.end : address < r.begin ? r.begin - address : 0;
        if (d < distance) distance = d, near = &r;
    }
    char hex[32];
    snprintf(hex, sizeof hex, "0x%llx", (unsigned long long)address);
    if (address < 4096) text += std::string("at a null pointer") + (address ? " + " + std::to_string(address) : "");
    else if (address - (u64)arena < ARENA)
        text += "of dynamic shared memory at " + std::to_string(address - (u64)arena) + " (the launch asked for " +
                std::to_string(dynamic_bytes) + " bytes)";
    else if (beside_static_shared(address))
        text += "beside the kernel's static shared memory";
    else if (near && distance < 1 << 20) {
        std::string size = std::to_string(near->end - near->begin);
        text += "of argument " + std::to_string(near->argument) + ", " +
                (address < near->begin ? std::to_string(distance) + " bytes before its beginning"
                                       : "at byte " + std::to_string(address - near->begin) + " of " + size);
    } else text += std::string("at ") + hex + ", which is in none of the launch's arrays";
    fail(text + at_place(t.place));
    check_failure();
}

// The region that holds the access; null for memory that is not watched (the kernel's own constants).
static Region* region_of(u64 address, u32 n, Kind kind, Thread& t) {
    if (address - (u64)arena < ARENA) {
        if (address + n <= (u64)arena + dynamic_bytes) return &dynamic_region;
    } else if (address >= static_region.begin && address + n <= static_region.end) {
        return &static_region;
    } else {
        auto inside = [&](size_t i) { return address >= regions[i].begin && address + n <= regions[i].end; };
        if (last_region < regions.size() && inside(last_region)) return &regions[last_region];
        for (size_t i = 0; i < regions.size(); i++) if (inside(i)) return &regions[last_region = i];
        if (address >= (u64)image_begin && address < (u64)image_end && !beside_static_shared(address)) return nullptr;
    }
    outside(address, n, kind, t);
    return nullptr;
}

// ---- for collectives and asynchronous copies, which touch memory on behalf of a thread ------------------------------
static void touch_global(const void* p, u32 n, Kind kind, Thread& t) {
    if (!checking || n == 0) return;
    if (Region* r = region_of((u64)p, n, kind, t)) touch(*r, (u64)p, n, kind, t, t.place);
}
static void touch_shared(u32 address, u32 n, Kind kind, Thread& t) {
    if (!checking || n == 0) return;
    u64 p = (u64)(address < ARENA ? arena + address : (u8*)static_begin + (address - ARENA));
    if (Region* r = region_of(p, n, kind, t)) touch(*r, p, n, kind, t, t.place);
}
static void set_written(u32 address, u32 n, u8 value) {
    if (!checking) return;
    Region& r = address < ARENA ? dynamic_region : static_region;
    memset(r.written + (address < ARENA ? address : address - ARENA), value, n);
}
// A copy to shared memory begins: a write of the thread; until it arrives, reading there is an error.
static void copy_begins(u32 to, u32 n) {
    touch_shared(to, n, WRITE, *current);
    set_written(to, n, 0);
}
static void copy_arrives(u32 to, u32 n) { set_written(to, n, 1); }

static void begin_memory() {                      // of a block
    begin_clocks();
    block_starts.push_back(block_began);
    block_released.push_back(0);
    blocks_in_order.push_back(block_index);
    block_acquired = 0;
    memset(dynamic_region.written, 0, dynamic_bytes);
    if (static_bytes()) memset(static_region.written, 0, static_bytes());
}

static void atomic_access(void* p, int bytes) {
    Thread& t = *current;
    Region* r = region_of((u64)p, (u32)bytes, ATOMIC, t);
    if (!r) return;
    if ((u64)p % bytes) fail("misaligned: an atomic operation needs a multiple of " + std::to_string(bytes) + " bytes");
    check_failure();
    touch(*r, (u64)p, (u32)bytes, ATOMIC, t, t.place);
    if (r == &dynamic_region || r == &static_region) return;
    if (t.fenced) block_released.back() = now++, t.fenced = false;
    block_acquired = now;
}

// ---- the calls that -fsanitize=thread inserts -----------------------------------------------------------------------
static int tracing;                               // 0: no; else what 16 bits are in a trace: 1 bf16, 2 f16
static u64 stack_begin, stack_bytes;              // of the current fiber
static void say_access(const Region& r, u64 address, u32 n, Kind kind);                              // trace.h
static void visit_site(u32 place, u64 address, u32 n, Kind kind, bool is_shared, int thread);      // sites.h

__attribute__((noinline)) static void instrumented(u64 address, u32 n, Kind kind, u32 alignment, const void* from) {
    if (!current || !checking) return;
    Thread& t = *current;
    t.place = place_of(from);
    Region* r = region_of(address, n, kind, t);
    if (!r) return;
    if (address % alignment) {
        fail("misaligned: " + thread_name(t) + " " + KIND[kind] + " " + std::to_string(n) + " bytes at " +
             region_name(*r, address) + at_place(t.place) + ", not at a multiple of " + std::to_string(alignment));
        check_failure();
    }
    touch(*r, address, n, kind, t, t.place);
    bool is_shared = r->written != nullptr;
    visit_site(t.place, is_shared ? address : address - r->begin, n, kind, is_shared, t.number);
    if (tracing) say_access(*r, address, n, kind);
}
}  // namespace sim

#define SIM_ACCESS(name, n, kind, alignment)                                                    \
    extern "C" void name(void* p) {                                                             \
        if ((sim::u64)p - sim::stack_begin < sim::stack_bytes) return;                          \
        sim::instrumented((sim::u64)p, n, sim::kind, alignment, __builtin_return_address(0));   \
    }
#define SIM_ACCESSES(n)                                                                         \
    SIM_ACCESS(__tsan_read##n, n, READ, n) SIM_ACCESS(__tsan_write##n, n, WRITE, n)             \
    SIM_ACCESS(__tsan_unaligned_read##n, n, READ, 1) SIM_ACCESS(__tsan_unaligned_write##n, n, WRITE, 1) \
    SIM_ACCESS(__tsan_volatile_read##n, n, READ, n) SIM_ACCESS(__tsan_volatile_write##n, n, WRITE, n) \
    SIM_ACCESS(__tsan_unaligned_volatile_read##n, n, READ, 1)                                   \
    SIM_ACCESS(__tsan_unaligned_volatile_write##n, n, WRITE, 1)
SIM_ACCESSES(1) SIM_ACCESSES(2) SIM_ACCESSES(4) SIM_ACCESSES(8) SIM_ACCESSES(16)
extern "C" {
static void sim_range(void* p, unsigned long n, sim::Kind kind, const void* from) {
    if (n == 0 || (sim::u64)p - sim::stack_begin < sim::stack_bytes) return;
    sim::instrumented((sim::u64)p, (sim::u32)n, kind, 1, from);
}
void __tsan_read_range(void* p, unsigned long n) { sim_range(p, n, sim::READ, __builtin_return_address(0)); }
void __tsan_write_range(void* p, unsigned long n) { sim_range(p, n, sim::WRITE, __builtin_return_address(0)); }
void* __tsan_memcpy(void* to, const void* from, unsigned long n) {
    sim_range((void*)from, n, sim::READ, __builtin_return_address(0));
    sim_range(to, n, sim::WRITE, __builtin_return_address(0));
    return memcpy(to, from, n);
}
void* __tsan_memmove(void* to, const void* from, unsigned long n) {
    sim_range((void*)from, n, sim::READ, __builtin_return_address(0));
    sim_range(to, n, sim::WRITE, __builtin_return_address(0));
    return memmove(to, from, n);
}
void* __tsan_memset(void* to, int value, unsigned long n) {
    sim_range(to, n, sim::WRITE, __builtin_return_address(0));
    return memset(to, value, n);
}
#define SIM_TSAN_CHANGE(bits, T, name, expression)                                              \
    T __tsan_atomic##bits##_##name(volatile T* p, T x, int) {                                   \
        sim_atomic((void*)p, sizeof(T));                                                        \
        T old = *p;                                                                             \
        *p = expression;                                                                        \
        return old;                                                                             \
    }
#define SIM_TSAN_ATOMIC(bits, T)                                                                \
    SIM_TSAN_CHANGE(bits, T, exchange, x) SIM_TSAN_CHANGE(bits, T, fetch_add, old + x)          \
    SIM_TSAN_CHANGE(bits, T, fetch_sub, old - x) SIM_TSAN_CHANGE(bits, T, fetch_and, old & x)   \
    SIM_TSAN_CHANGE(bits, T, fetch_or, old | x) SIM_TSAN_CHANGE(bits, T, fetch_xor, old ^ x)    \
    T __tsan_atomic##bits##_load(const volatile T* p, int) { sim_atomic((void*)p, sizeof(T)); return *p; } \
    void __tsan_atomic##bits##_store(volatile T* p, T x, int) { sim_atomic((void*)p, sizeof(T)); *p = x; } \
    int __tsan_atomic##bits##_compare_exchange_strong(volatile T* p, T* want, T x, int, int) {  \
        sim_atomic((void*)p, sizeof(T));                                                        \
        T old = *p;                                                                             \
        if (old == *want) { *p = x; return 1; }                                                 \
        *want = old;                                                                            \
        return 0;                                                                               \
    }                                                                                           \
    int __tsan_atomic##bits##_compare_exchange_weak(volatile T* p, T* want, T x, int a, int b) { \
        return __tsan_atomic##bits##_compare_exchange_strong(p, want, x, a, b);                 \
    }
SIM_TSAN_ATOMIC(8, uint8_t) SIM_TSAN_ATOMIC(16, uint16_t) SIM_TSAN_ATOMIC(32, uint32_t) SIM_TSAN_ATOMIC(64, uint64_t)
void __tsan_atomic_thread_fence(int) { sim_threadfence(); }
void __tsan_atomic_signal_fence(int) {}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_ignore_thread_begin() {}
void __tsan_ignore_thread_end() {}
}

// Running a grid: blocks in a drawn order, and the scheduler of a block's fibers.
#pragma once
namespace sim {
struct Buffer { u64 address, bytes; u32 argument, read_only, format, unused; };   // an array that the kernel was given
struct Launch {                                   // filled by module.py, field by field
    u32 grid[3], block[3], shared_bytes, late, check, trace, trace_warp, shared_limit;
    u64 trace_steps, seed;
    u64 buffers;                                  // Buffer*
    u64 buffer_count;
    u64 counters;                                 // Counters*, out
};
static bool (*engine_step)() = nullptr;           // of hopper.h: does one operation of the asynchronous units, if any
static void (*reset_block)() = nullptr;           // of hopper.h: mbarriers, queues
static bool hopper_used;                          // since the last reset

static void (*kernel_body)(void*);
static void* kernel_arguments;

static void leave() {                             // a thread that has returned is not waited for at barriers
    live--, progress++;
    live_lanes[warp_number()] &= ~(1u << lane());
    barriers[0].complete = barriers[0].arrived && barriers[0].arrived >= live;
    for (auto& m : warps[warp_number()])
        if (m.first >> lane() & 1) m.second.complete = m.second.arrived && m.second.arrived >= --m.second.members;
}
static void entry() {
    kernel_body(kernel_arguments);
    current->done = true;
    leave();
    for (;;) switch_fiber(current->fiber, scheduler);
}
static void resume(Thread& t) {
    current = &t;
    sim_thread_index = t.index, sim_thread_number = t.number;
    stack_begin = (u64)t.fiber.stack, stack_bytes = STACK;
    switch_fiber(scheduler, t.fiber);
    current = nullptr;
}

static std::string deadlock() {
    std::vector<std::pair<std::string, int>> where;
    for (Thread& t : threads) {
        if (t.done) continue;
        std::string place = t.waits + at_place(t.place);
        auto found = std::find_if(where.begin(), where.end(), [&](auto& w) { return w.first == place; });
        if (found == where.end()) where.push_back({place, 1}); else found->second++;
    }
    std::string text = "deadlock in " + block_name(block_index) + ":";
    for (auto& [place, n] : where)
        text += " " + std::to_string(n) + (n == 1 ? " thread waits at " : " threads wait at ") + place + ";";
    int done = (int)threads.size() - live;
    return text + (done ? " " + std::to_string(done) + " have returned" : " none has returned");
}

static void run_block() {
    int n = (int)threads.size();
    memset(arena, 0xff, dynamic_bytes);
    if (static_bytes()) memset(static_begin, 0xff, static_bytes());
    warps.resize((n + 31) / 32);
    for (auto& meetings : warps) meetings.clear();
    for (Meeting& m : barriers) m = Meeting();
    if (reset_block && hopper_used) reset_block(), hopper_used = false;
    live = n;
    std::vector<int> order(n);
    for (int i = 0; i < n; i++) {
        Thread& t = threads[i];
        unsigned x = block_dim.x, y = block_dim.y;
        t.index = {i % x, i / x % y, i / (x * y)};
        t.number = i, t.done = t.fenced = false, t.at = nullptr, t.place = 0, t.open.clear(), t.groups.clear();
        start_fiber(t.fiber, entry);
        live_lanes[i / 32] = i % 32 ? live_lanes[i / 32] | 1u << i % 32 : 1;
        order[i] = i;
    }
    if (checking) begin_memory();
    std::vector<char> held(warps.size(), 0);      // warps kept waiting, so that others run ahead
    bool holding = false;
    int rounds = 0;
    while (live) {
        if (rounds-- == 0) {
            rounds = 1 + (int)random_below(100);
            holding = false;
            for (char& h : held) holding |= h = (char)random_below(2);
        }
        shuffle(order);
        u64 before = progress;
        for (int i : order) {
            Thread& t = threads[i];
            if (t.done || held[i / 32] || (t.at && t.at->turn == t.turn && !t.at->complete)) continue;
            resume(t);
            if (!error.empty()) return;
        }
        if (progress == before && holding) {
            std::fill(held.begin(), held.end(), 0);
            holding = false;
            continue;
        }
        if (engine_step && (progress == before || random_below(4) == 0) && engine_step()) {
            if (!error.empty()) return;
            progress++;
            continue;
        }
        if (live && progress == before) return fail(deadlock());
    }
}

static void begin_launch(const Launch& l) {
    grid_dim = {l.grid[0], l.grid[1], l.grid[2]};
    block_dim = {l.block[0], l.block[1], l.block[2]};
    dynamic_bytes = l.shared_bytes, late = (int)l.late, checking = l.check;
    tracing = (int)l.trace, traced_warp = (int)l.trace_warp, trace_steps = l.trace_steps, trace_text.clear();
    random_state = l.seed * 0x9e3779b97f4a7c15ull + 0x1234567;
    error.clear(), current = nullptr, count = Counters(), meetings.clear();
    clear_sites();
    for (Region& r : regions) release_region(r);
    regions.clear(), block_starts.clear(), block_released.clear(), blocks_in_order.clear();
    if (!checking) return;
    last_region = 0;
    if (now > 1u << 31) now = 0, release_region(dynamic_region), release_region(static_region);
    const Buffer* buffers = (const Buffer*)l.buffers;
    for (u64 i = 0; i < l.buffer_count; i++) {
        Region r;
        prepare_region(r, buffers[i].address, buffers[i].address + buffers[i].bytes, false);
        r.argument = (int)buffers[i].argument, r.read_only = buffers[i].read_only, r.format = buffers[i].format;
        regions.push_back(r);
        if (!r.words || !r.bytes) {
            fail("no memory to check an array of " + std::to_string(buffers[i].bytes) + " bytes: use check=False");
            return;
        }
    }
    prepare_region(dynamic_region, (u64)arena, (u64)arena + ARENA, true);
    prepare_region(static_region, (u64)static_begin, (u64)static_end, true);
}

static const char* run_grid(const Launch& l) {
    begin_launch(l);
    size_t n = (size_t)block_dim.x * block_dim.y * block_dim.z;
    if (n == 0 || n > 1024) fail("a block has 1 to 1024 threads, not " + std::to_string(n));
    if (grid_dim.y > 65535 || grid_dim.z > 65535) fail("a grid has at most 65535 blocks in y and z");
    // Static variables of all kernels of a source lie in one section: their limit, of 48 KB, is for the compile checks.
    if (dynamic_bytes > l.shared_limit)
        fail(std::to_string(dynamic_bytes) + " bytes of shared memory; a block of this GPU has at most " +
             std::to_string(l.shared_limit / 1024) + " KB");
    if (!error.empty()) return error.c_str();
    for (size_t i = n; i < threads.size(); i++) free_stack(threads[i].fiber);
    threads.resize(n);
    std::vector<uint3> blocks;
    for (unsigned z = 0; z < grid_dim.z; z++)
        for (unsigned y = 0; y < grid_dim.y; y++)
            for (unsigned x = 0; x < grid_dim.x; x++) blocks.push_back({x, y, z});
    shuffle(blocks);
    CatchCrashes catching;
    for (uint3 b : blocks) {
        block_index = b;
        run_block();
        if (checking) end_clocks(), flush_sites();
        if (!error.empty()) break;
    }
    if (l.counters) *(Counters*)l.counters = count;
    return error.c_str();
}

// ---- the last launch in numbers, as JSON: module.py makes a Report of it --------------------------------------------
static std::string report_text;
static void put(const char* format, ...) {
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    report_text += text;
}
static const char* write_report() {
    report_text = "{\"meetings\": {";
    for (size_t i = 0; i < meetings.size(); i++)
        put("%s\"%s\": %llu", i ? ", " : "", meetings[i].first, (unsigned long long)meetings[i].second);
    report_text += "}, \"arguments\": [";
    for (size_t i = 0; i < regions.size(); i++)
        put("%s[%d, %llu, %llu]", i ? ", " : "", regions[i].argument, (unsigned long long)regions[i].bytes_read,
            (unsigned long long)regions[i].bytes_written);
    report_text += "], \"sites\": [";
    for (size_t i = 0; i < sites.size(); i++) {
        const Site& s = sites[i];
        put("%s[%u, %d, %d, %u, %llu, %llu, %llu, %llu]", i ? ", " : "", s.place, (int)s.is_shared, (int)s.kind, s.size,
            (unsigned long long)s.requests, (unsigned long long)s.bytes, (unsigned long long)s.conflicts,
            (unsigned long long)s.sectors);
    }
    report_text += "]}";
    return report_text.c_str();
}
}  // namespace sim

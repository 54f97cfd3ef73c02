// What warp 0 of the first block does, step by step, in words: for `python -m kernels.simulator ... --trace`.
#pragma once
#include <cstdarg>
namespace sim {
static int traced_warp;
static u64 trace_steps;                           // that remain
static std::string trace_text;

static bool traced() {
    return tracing && trace_steps && current && warp_number() == traced_warp &&
           block_index.x + block_index.y + block_index.z == 0;
}
static bool traced_lane() { return traced() && lane() == 0; }
__attribute__((format(printf, 1, 2))) static void say(const char* format, ...) {
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    trace_text += line;
}
static void step(const char* what) {              // begins one
    trace_steps--;
    trace_text += what + at_place(current->place) + "\n";
}
static float bf16_value(u16 bits) {
    u32 u = (u32)bits << 16;
    float x;
    memcpy(&x, &u, 4);
    return x;
}
static float traced_number(u16 bits) { return tracing == 2 ? from_half(bits) : bf16_value(bits); }
template <class F> static void say_matrix(const char* name, int rows, int columns, F element) {
    for (int i = 0; i < rows; i++) {
        say("    %-4s", i == 0 ? name : "");
        for (int j = 0; j < columns; j++) say("%7.2f", (double)element(i, j));
        say("\n");
    }
}
// A step of lane 0 in one line.
__attribute__((format(printf, 2, 3))) static void say_step(const char* what, const char* format, ...) {
    if (!traced_lane()) return;
    step(what);
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    trace_text += std::string("    ") + line + "\n";
}

// ---- ordinary loads and stores of lane 0
static void say_access(const Region& r, u64 address, u32 n, Kind kind) {
    if (!traced_lane()) return;
    step(kind == READ ? "load" : "store");
    say("    lane 0 %s %u bytes: %s", KIND[kind], n, region_name(r, address).c_str());
    if (kind == READ && r.format) {
        say(":");
        u32 size = r.format <= 2 ? 2 : 4;
        for (u32 i = 0; i + size <= n; i += size) {
            u16 half;
            float single;
            int integer;
            memcpy(&half, (void*)(address + i), 2);
            if (size == 4) memcpy(&single, (void*)(address + i), 4), memcpy(&integer, &single, 4);
            if (r.format == 4) say(" %d", integer);
            else say(" %.4g", (double)(r.format == 1 ? bf16_value(half) : r.format == 2 ? from_half(half) : single));
        }
    }
    say("\n");
}
}  // namespace sim

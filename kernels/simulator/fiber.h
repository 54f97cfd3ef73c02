// Fibers: switch_fiber(from, to) saves this stack's place in `from` and goes on where `to` was left. About 5 ns.
#pragma once
#include <sys/mman.h>
#if defined(__x86_64__)
extern "C" __attribute__((visibility("hidden"))) void sim_switch(void** save, void* load);
asm(R"(
.text
.globl sim_switch
.hidden sim_switch
sim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");
#elif defined(__aarch64__)
extern "C" __attribute__((visibility("hidden"))) void sim_switch(void** save, void* load);
asm(R"(
.text
.globl sim_switch
.hidden sim_switch
sim_switch:
    sub sp, sp, #160
    stp x19, x20, [sp]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
)");
#else
#error "the simulator switches stacks on x86-64 and arm64 only"
#endif

namespace sim {
constexpr size_t STACK = 256 << 10, GUARD = 64 << 10;             // pages are touched as they are used
struct Fiber {
    void* place = nullptr;              // the saved stack pointer
    unsigned char* stack = nullptr;     // null for the scheduler, which runs on the caller's; kept for the next launch
};
static inline void switch_fiber(Fiber& from, Fiber& to) { sim_switch(&from.place, to.place); }

// Prepares a fiber that begins in entry(), which must not return. Below its stack lies memory that must not be touched.
static void start_fiber(Fiber& f, void (*entry)()) {
    if (!f.stack) {
        void* room = mmap(nullptr, GUARD + STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (room == MAP_FAILED) { fprintf(stderr, "the CUDA simulator: no memory for stacks\n"); abort(); }
        mprotect(room, GUARD, PROT_NONE);
        f.stack = (unsigned char*)room + GUARD;
    }
    void** s = (void**)(f.stack + STACK);
#if defined(__x86_64__)
    *--s = nullptr;                     // so that the stack is as after a call: 8 mod 16
    *--s = (void*)entry;
    for (int i = 0; i < 6; i++) *--s = nullptr;
#else
    s -= 20;
    memset(s, 0, 160);
    s[11] = (void*)entry;               // x30
#endif
    f.place = s;
}
static void free_stack(Fiber& f) {
    if (f.stack) munmap(f.stack - GUARD, GUARD + STACK);
    f.stack = nullptr;
}
}  // namespace sim

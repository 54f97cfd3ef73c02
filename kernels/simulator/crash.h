// A kernel that is not checked may touch memory that does not exist: the signal becomes an error of the launch.
#pragma once
#include <csignal>
#if defined(__linux__) && (defined(__x86_64__) || defined(__aarch64__))
#include <ucontext.h>
namespace sim {
static void crashed() {                           // the fiber goes on here instead
    fail("a misaligned access, or one outside of memory; check=True tells more");
    check_failure();
}
static void on_signal(int signal, siginfo_t*, void* context) {
    if (!current) { std::signal(signal, SIG_DFL); return; }       // not the kernel's doing: it happens again, and ends
    auto& machine = ((ucontext_t*)context)->uc_mcontext;
    u64 top = (u64)current->fiber.stack + STACK - 64;
#if defined(__x86_64__)
    char* at = (char*)machine.gregs[REG_RIP];
    machine.gregs[REG_RIP] = (greg_t)crashed, machine.gregs[REG_RSP] = (greg_t)(top - 8);
#else
    char* at = (char*)machine.pc;
    machine.pc = (u64)crashed, machine.sp = top;
#endif
    if (at >= image_begin && at < image_end) current->place = place_of(at) + 1;
}
struct CatchCrashes {                             // while it exists
    struct sigaction before[2];
    stack_t stack_before;
    CatchCrashes() {
        alignas(16) static char room[64 << 10];
        stack_t stack = {};
        stack.ss_sp = room, stack.ss_size = sizeof room;
        sigaltstack(&stack, &stack_before);
        struct sigaction action = {};
        action.sa_sigaction = on_signal, action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        sigaction(SIGSEGV, &action, &before[0]), sigaction(SIGBUS, &action, &before[1]);
    }
    ~CatchCrashes() {
        sigaction(SIGSEGV, &before[0], nullptr), sigaction(SIGBUS, &before[1], nullptr);
        sigaltstack(&stack_before, nullptr);
    }
};
}  // namespace sim
#else
namespace sim { struct CatchCrashes { CatchCrashes() {} ~CatchCrashes() {} }; }
#endif

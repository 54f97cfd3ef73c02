// Barriers with a vote, and exchanges between the lanes of a warp.
#pragma once
namespace sim {
static int syncthreads_votes(int x, const char* what) {           // how many threads say x
    static int votes[2];
    static unsigned phase;
    unsigned now = 0;
    meet(barriers[0], live, -1, nullptr, what, [](void**) { votes[++phase % 2] = 0; });
    now = phase;
    votes[now % 2] += x != 0;
    barrier(0, live, what);
    return votes[now % 2];
}
// Every lane hands in a value and gets that of lane `from`; from outside the mask or the warp: an error.
static void shuffle_lanes(u32 mask, const void* in, void* out, int bytes, int from, const char* what) {
    struct Slot { const void* in; void* out; int from; } slot{in, out, from};
    meet_warp(mask, &slot, what, [mask, what, bytes](void** slots) {
        u32 lanes = existing(mask);
        for (int i = 0; i < 32; i++) {
            if (!(lanes >> i & 1)) continue;
            Slot& s = *(Slot*)slots[i];
            if (s.from < 0 || s.from > 31 || !(lanes >> s.from & 1))
                return fail(std::string(what) + ": lane " + std::to_string(i) + " reads lane " +
                            std::to_string(s.from) + ", which does not take part");
            memcpy(s.out, ((Slot*)slots[s.from])->in, bytes);
        }
    }, EXCHANGE);
}
static void gather_lanes(u32 mask, const void* in, void* out, int bytes, const char* what) {
    struct Slot { const void* in; void* out; } slot{in, out};
    meet_warp(mask, &slot, what, [mask, bytes](void** slots) {
        u32 lanes = existing(mask);
        for (int i = 0; i < 32; i++)
            for (int k = 0; k < 32; k++)
                if ((lanes >> i & 1) && (lanes >> k & 1))
                    memcpy((u8*)((Slot*)slots[i])->out + k * bytes, ((Slot*)slots[k])->in, bytes);
    }, EXCHANGE);
}
static u32 ballot(u32 mask, bool x, const char* what) {
    struct Slot { bool in; u32 out; } slot{x, 0};
    meet_warp(mask, &slot, what, [mask](void** slots) {
        u32 all = 0, lanes = existing(mask);
        for (int i = 0; i < 32; i++) if (lanes >> i & 1) all |= (u32)((Slot*)slots[i])->in << i;
        for (int i = 0; i < 32; i++) if (lanes >> i & 1) ((Slot*)slots[i])->out = all;
    }, EXCHANGE);
    return slot.out;
}
}  // namespace sim

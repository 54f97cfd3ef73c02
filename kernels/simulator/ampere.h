// cp.async, ldmatrix and mma.sync (sm_80), as ptx.cuh calls them. Fragment layouts: "Parallel Thread Execution ISA".
#pragma once
namespace sim {
// ---- cp.async: a late copy happens when its group is waited for; until then the destination holds NaN
static void do_copy(const Copy& c) {
    u8* to = shared(c.to, 16, 16, "cp.async");
    if (c.bytes) memcpy(to, c.from, c.bytes);
    memset(to + c.bytes, 0, 16 - c.bytes);
}
static void cp_async(u32 to, const void* from, int bytes) {
    count.cp_async++;
    u8* target = shared(to, 16, 16, "cp.async");
    if ((u64)from % 16) { fail("cp.async: the global address is not a multiple of 16"); check_failure(); }
    touch_global(from, bytes, READ, *current);
    copy_begins(to, 16);
    if (late & 1) memset(target, 0xff, 16); else do_copy({to, from, bytes});
    current->open.push_back({to, from, bytes});
}
static void cp_async_commit() {
    if (traced_lane()) {
        step("cp.async.commit_group");
        say("    lane 0 closes a group of %d copies of 16 bytes, global to shared memory:", (int)current->open.size());
        for (size_t i = 0; i < current->open.size() && i < 6; i++) say(" -> %u", current->open[i].to);
        say("%s\n    %d groups of lane 0 are now under way; until a wait their destination must not be read\n",
            current->open.size() > 6 ? " ..." : "", (int)current->groups.size() + 1);
    }
    current->groups.push_back(std::move(current->open));
    current->open.clear();
}
static void cp_async_wait(int keep) {
    auto& groups = current->groups;
    if (traced_lane()) {
        step("cp.async.wait_group");
        int n = (int)groups.size(), arrive = std::max(0, n - keep);
        say("    lane 0 waits until at most %d of its %d groups are under way: %d arrive now\n", keep, n, arrive);
    }
    for (; (int)groups.size() > keep; groups.pop_front())
        for (const Copy& c : groups.front()) {
            if (late & 1) do_copy(c);
            copy_arrives(c.to, 16);
        }
}

// Shared memory has 32 banks of 4 bytes: addresses of different rows in one bank cost a pass each. Counted per 8 lanes
// of 16 bytes, as the hardware reads them.
static u32 count_conflicts(const u32 (&address)[8]) {
    int used[32] = {}, worst = 0;
    for (int i = 0; i < 8; i++) {
        bool seen = false;
        for (int k = 0; k < i; k++) seen |= address[k] == address[i];
        if (seen) continue;
        int n = ++used[address[i] / 16 % 8];
        worst = n > worst ? n : worst;
    }
    count.bank_conflicts += worst - 1;
    return worst - 1;
}

struct Rows { u32* r; u32 row; };                 // what a lane brings to ldmatrix
static void say_ldmatrix(void** slots, bool transposed, u32 conflicts) {
    step(transposed ? "ldmatrix.x4.trans" : "ldmatrix.x4");
    for (int m = 0; m < 4; m++) {
        say("    matrix %d: its 8 rows at shared addresses", m);
        for (int i = 0; i < 8; i++) say(" %u", ((Rows*)slots[8 * m + i])->row);
        say(" (from lanes %d to %d)\n", 8 * m, 8 * m + 7);
        say_matrix("", 8, 8, [&](int i, int j) {
            u16 bits;
            memcpy(&bits, shared(((Rows*)slots[8 * m + i])->row + 2 * j, 2, 2, "ldmatrix"), 2);
            return traced_number(bits);
        });
    }
    u32 r = ((Rows*)slots[5])->r[0];
    say("    lane l now holds of each matrix %s and the next one; lane 5 of matrix 0: %.3g, %.3g\n"
        "    bank conflicts: %u\n",
        transposed ? "column l / 4, rows 2 (l % 4)" : "row l / 4, columns 2 (l % 4)", (double)traced_number((u16)r),
        (double)traced_number((u16)(r >> 16)), conflicts);
}
static void ldmatrix_x4(u32* r, u32 row, bool transposed) {
    Rows slot{r, row};
    meet_warp(~0u, &slot, transposed ? "ldmatrix.trans" : "ldmatrix", [transposed](void** slots) {
        count.ldmatrix++;
        u32 conflicts = 0;
        Thread* first = &threads[current->number / 32 * 32];
        for (int m = 0; m < 4; m++) {
            const u8* rows[8];
            u32 address[8];
            for (int i = 0; i < 8; i++) {
                address[i] = ((Rows*)slots[8 * m + i])->row;
                rows[i] = shared(address[i], 16, 16, "ldmatrix");
                touch_shared(address[i], 16, READ, first[8 * m + i]);
            }
            conflicts += count_conflicts(address);
            for (int l = 0; l < 32; l++) {
                u16 pair[2];
                for (int h = 0; h < 2; h++) {
                    int i = l / 4, j = l % 4 * 2 + h;
                    memcpy(&pair[h], transposed ? rows[j] + 2 * i : rows[i] + 2 * j, 2);
                }
                ((Rows*)slots[l])->r[m] = pair[0] | (u32)pair[1] << 16;
            }
        }
        if (traced()) say_ldmatrix(slots, transposed, conflicts);
    }, EXCHANGE);
}

// D (16 x 8) += A (16 x 16) B (16 x 8); `number` turns 16 bits into a float. The sum is in float32, k in order.
static void mma_m16n8k16(float* d, const u32* a, const u32* b, float (*number)(u16)) {
    struct Slot { float* d; const u32 *a, *b; } slot{d, a, b};
    meet_warp(~0u, &slot, "mma", [number](void** slots) {
        count.mma++;
        float A[16][16], B[16][8], before[16][8], D[16][8];
        for (int l = 0; l < 32; l++) {
            Slot& s = *(Slot*)slots[l];
            int g = l / 4, t = l % 4 * 2;
            for (int i = 0; i < 4; i++)
                for (int h = 0; h < 2; h++) A[g + i % 2 * 8][t + i / 2 * 8 + h] = number((u16)(s.a[i] >> 16 * h));
            for (int i = 0; i < 2; i++)
                for (int h = 0; h < 2; h++) B[t + i * 8 + h][g] = number((u16)(s.b[i] >> 16 * h));
        }
        for (int l = 0; l < 32; l++)
            for (int i = 0; i < 4; i++) {
                float& sum = ((Slot*)slots[l])->d[i];
                int row = l / 4 + i / 2 * 8, column = l % 4 * 2 + i % 2;
                float total = 0;
                for (int k = 0; k < 16; k++) total += A[row][k] * B[k][column];
                before[row][column] = sum;
                sum += total;
                D[row][column] = sum;
            }
        if (!traced()) return;
        step("mma.m16n8k16: D (16 x 8) = A (16 x 16) B (16 x 8) + C, the 32 lanes together");
        say_matrix("A", 16, 16, [&](int i, int j) { return A[i][j]; });
        say_matrix("B", 16, 8, [&](int i, int j) { return B[i][j]; });
        say("    left C, right D\n");
        say_matrix("", 16, 16, [&](int i, int j) { return j < 8 ? before[i][j] : D[i][j - 8]; });
        say("    lane l holds D[l / 4][2 (l %% 4)] and the next one, and the same 8 rows below; "
            "lane 5: %.3g, %.3g, %.3g, %.3g\n",
            (double)D[1][2], (double)D[1][3], (double)D[9][2], (double)D[9][3]);
    }, EXCHANGE);
}
}  // namespace sim

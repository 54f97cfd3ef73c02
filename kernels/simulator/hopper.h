// mbarrier, TMA and wgmma (sm_90a), as hopper.cuh calls them. Source: "Parallel Thread Execution ISA", NVIDIA.
//
// What is asynchronous happens as late as the kernel's waits allow (`late`), and its destination holds NaN until then:
//
//     TMA load      waits in `transfers` until the scheduler draws it (engine_step); then the bytes come, and count
//     TMA store     waits in its thread's bulk group until that thread waits for the group; it reads shared memory then
//     wgmma         waits in its warpgroup's group; it reads shared memory and writes the accumulators at the wait
//
// Errors that a GPU would answer with wrong numbers are found here: a wgmma without a fence before it, descriptors that
// differ between threads or leave shared memory, an mbarrier used before it was initialised or arrived at too often,
// and shared memory written by ordinary stores and read by TMA or wgmma without fence.proxy.async in between.
#pragma once
#include <functional>
#include <map>

namespace sim {
// ---- mbarrier ------------------------------------------------------------------------------------------------------
// What an arrival allows may happen before the thread that arrived takes another step.
static void let_others_run() { if (random_below(2)) yield("nothing"); }

// A phase ends when `expected` arrivals and all bytes announced for it have come.
struct Mbarrier {
    int expected = 0, arrivals_left = 0, bytes_left = 0;
    u32 phase = 0;
    bool fenced = false;                          // TMA may use it only after fence.mbarrier_init
    Order arrived, completed;                     // what was before the arrivals so far; before the last phase's end
};
static std::map<u32, Mbarrier> mbarriers;         // by address

static Mbarrier& mbarrier(u32 address, const char* what) {
    shared(address, 8, 8, what);
    auto found = mbarriers.find(address);
    if (found == mbarriers.end()) { fail(std::string(what) + ": no mbarrier was initialised there"); check_failure(); }
    return found->second;
}
static void end_phase_if_complete(Mbarrier& b) {
    if (b.arrivals_left || b.bytes_left) return;
    b.phase ^= 1, b.arrivals_left = b.expected, b.completed = b.arrived;
    progress++;
}
static void mbarrier_init(u32 address, int arrivals) {
    shared(address, 8, 8, "mbarrier.init");
    mbarriers[address] = {arrivals, arrivals};
}
static void mbarrier_init_fence() { for (auto& b : mbarriers) b.second.fenced = true; }
static void mbarrier_arrive(u32 address, int bytes = 0) {
    Mbarrier& b = mbarrier(address, "mbarrier.arrive");
    if (!b.arrivals_left) { fail("mbarrier.arrive: more arrivals than the phase has"); check_failure(); }
    b.bytes_left += bytes, b.arrivals_left--;
    release(b.arrived);
    progress++;
    end_phase_if_complete(b);
    let_others_run();
}
static void mbarrier_wait(u32 address, u32 parity) {
    while (mbarrier(address, "mbarrier.wait").phase == parity) yield("an mbarrier");
    acquire(mbarriers[address].completed);
}

// ---- ordinary stores and the asynchronous proxy --------------------------------------------------------------------
// Who wrote the word of shared memory without a fence.proxy.async since (thread + 1), or 0.
static u16 unfenced[ARENA / 4];
static std::vector<u32> unfenced_by[1024];        // the words of each thread

static void shared_store(u32 address, const void* from, u32 bytes) {
    memcpy(shared(address, bytes, bytes, "st.shared"), from, bytes);
    touch_shared(address, bytes, WRITE, *current);
    if (address >= ARENA) return;
    for (u32 word = address / 4; word < (address + bytes) / 4; word++) {
        unfenced[word] = (u16)(current->number + 1);
        unfenced_by[current->number].push_back(word);
    }
}
static void fence_async_proxy() {
    auto& mine = unfenced_by[current->number];
    for (u32 word : mine) if (unfenced[word] == current->number + 1) unfenced[word] = 0;
    mine.clear();
}
static void check_fenced(u32 address, u32 bytes, const char* what) {
    for (u32 word = address / 4; word < (address + bytes) / 4 && word < ARENA / 4; word++)
        if (unfenced[word])
            return fail(std::string(what) + " reads shared memory at " + std::to_string(4 * word) + ", which thread " +
                        std::to_string(unfenced[word] - 1) + " wrote without fence.proxy.async");
}

// ---- TMA -----------------------------------------------------------------------------------------------------------
struct alignas(64) TensorMap {                    // what gpu/tensor_map.py fills; innermost dimension first
    u64 address, size[4], stride[4];              // stride in bytes; [0] is the element's size
    u32 box[4], rank, element, swizzle, is_float;
    u32 rest[6];
};
static_assert(sizeof(TensorMap) == 128, "as large as a CUtensorMap");

// 128-byte swizzle: within each 1024 bytes, the 16-byte chunk of a 128-byte row is exchanged by the row's number.
static inline u32 swizzled(u32 address, u32 width) {
    return width == 128 ? address ^ (address >> 7 & 7) << 4 : address;
}

static u32 box_bytes(const TensorMap& map) {
    return map.box[0] * map.box[1] * map.box[2] * map.box[3] * map.element;
}
// f(shared address, global address, or null outside the tensor, bytes) for each 16 bytes of the box.
template <class F> static void for_box(const TensorMap& map, u32 at, const int (&corner)[4], F f) {
    u32 per = 16 / map.element, row = map.box[0] * map.element;
    for (u32 i = 0; i < map.box[3] * map.box[2] * map.box[1]; i++) {
        int index[4] = {0, corner[1] + (int)(i % map.box[1]), corner[2] + (int)(i / map.box[1] % map.box[2]),
                        corner[3] + (int)(i / map.box[1] / map.box[2])};
        bool row_inside = true;
        for (int d = 1; d < 4; d++) row_inside &= index[d] >= 0 && (u64)index[d] < map.size[d];
        for (u32 x = 0; x < map.box[0]; x += per) {
            u32 to = swizzled(at + i * row + x * map.element, map.swizzle);
            int64_t first = corner[0] + (int64_t)x, inside = (int64_t)map.size[0] - first;
            u64 global = map.address + first * map.element;
            for (int d = 1; d < 4; d++) global += index[d] * map.stride[d];
            u32 bytes = !row_inside || first < 0 || inside <= 0 ? 0 : (inside < per ? (u32)inside : per) * map.element;
            f(to, bytes ? (u8*)global : nullptr, bytes);
        }
    }
}
static void check_box(const TensorMap& map, u32 at, u32 rank, const char* what) {
    if (map.rank != rank) fail(std::string(what) + ": the tensor map has " + std::to_string(map.rank) + " dimensions");
    check_failure();
    shared(at, box_bytes(map), map.swizzle == 128 ? 1024 : 128, what);
}

static std::vector<std::function<void()>> transfers;             // loads under way
static void start_transfer(std::function<void()> transfer) {
    count.tma++;
    if (late & 1) transfers.push_back(std::move(transfer)); else transfer();
}
static bool finish_some_transfer() {
    if (transfers.empty()) return false;
    u32 k = random_below((u32)transfers.size());
    std::function<void()> transfer = std::move(transfers[k]);
    transfers.erase(transfers.begin() + k);
    transfer();
    return true;
}
static Mbarrier& mbarrier_of_transfer(u32 address) {
    Mbarrier& b = mbarrier(address, "TMA load");
    if (!b.fenced) { fail("TMA load: its mbarrier was initialised without fence.mbarrier_init"); check_failure(); }
    return b;
}
// The bytes of a load have come to `to`, which `thread` asked for at `time`.
static void complete_bytes(u32 address, u32 to, u32 bytes, int thread, u32 time) {
    Mbarrier& b = mbarriers[address];
    b.bytes_left -= (int)bytes;
    copy_arrives(to, bytes);
    release(b.arrived, threads[thread], time);
    progress++;
    end_phase_if_complete(b);
}
static void tma_load(u32 to, const TensorMap* map, u32 mbarrier_address, u32 rank, int x, int y, int z, int w) {
    check_box(*map, to, rank, "TMA load");
    mbarrier_of_transfer(mbarrier_address);
    copy_begins(to, box_bytes(*map));
    for_box(*map, to, {x, y, z, w}, [](u32, const u8* global, u32 n) { touch_global(global, n, READ, *current); });
    memset(arena + to, 0xff, box_bytes(*map));
    start_transfer([to, map = *map, mbarrier_address, x, y, z, w, me = current->number, time = now] {
        for_box(map, to, {x, y, z, w}, [](u32 at, const u8* global, u32 bytes) {
            memset(arena + at, 0, 16);            // outside the tensor: zeros
            if (bytes) memcpy(arena + at, global, bytes);
        });
        complete_bytes(mbarrier_address, to, box_bytes(map), me, time);
    });
}
static void bulk_load(u32 to, const void* from, u32 bytes, u32 mbarrier_address) {
    if (bytes % 16 || (u64)from % 16) fail("cp.async.bulk: addresses and sizes are multiples of 16 bytes");
    shared(to, bytes, 16, "cp.async.bulk");
    mbarrier_of_transfer(mbarrier_address);
    copy_begins(to, bytes);
    touch_global(from, bytes, READ, *current);
    memset(arena + to, 0xff, bytes);
    start_transfer([=, me = current->number, time = now] {
        memcpy(arena + to, from, bytes);
        complete_bytes(mbarrier_address, to, bytes, me, time);
    });
}

struct BulkGroups {                               // stores of one thread
    std::vector<std::function<void()>> open;
    std::deque<std::vector<std::function<void()>>> committed;
};
static BulkGroups bulk_groups[1024];

static void tma_store(const TensorMap* map, u32 from, u32 rank, int x, int y, int z, int w, bool add) {
    const char* what = add ? "TMA reduce" : "TMA store";
    check_box(*map, from, rank, what);
    if (add && !map->is_float) fail("TMA reduce: only float32 is modelled");
    count.tma++;
    for_box(*map, from, {x, y, z, w}, [add](u32 at, u8* global, u32 n) {
        touch_shared(at, n, READ, *current);
        touch_global(global, n, add ? ATOMIC : WRITE, *current);
    });
    check_fenced(from, box_bytes(*map), what);
    auto transfer = [map = *map, from, x, y, z, w, add] {
        for_box(map, from, {x, y, z, w}, [add](u32 at, u8* global, u32 bytes) {
            if (!add && bytes) memcpy(global, arena + at, bytes);
            for (u32 i = 0; add && i < bytes / 4; i++) ((float*)global)[i] += ((float*)(arena + at))[i];
        });
    };
    if (late & 1) bulk_groups[current->number].open.push_back(transfer); else transfer();
    check_failure();
}
static void bulk_commit() {
    BulkGroups& groups = bulk_groups[current->number];
    groups.committed.push_back(std::move(groups.open));
    groups.open.clear();
}
static void bulk_wait(int keep) {
    auto& groups = bulk_groups[current->number].committed;
    for (; (int)groups.size() > keep; groups.pop_front())
        for (auto& transfer : groups.front()) transfer();
    check_failure();
}

// ---- wgmma: D (64 x N, float) = A (64 x 16) B (16 x N) + D ---------------------------------------------------------
struct Warpgroup {
    Meeting meeting;
    std::vector<std::function<void()>> open;
    std::deque<std::vector<std::function<void()>>> committed;
    struct Hidden { std::vector<float> value; int products = 0; };
    std::map<float*, Hidden> hidden;              // the true accumulators, while the kernel's hold NaN
};
static Warpgroup warpgroups[8];
static bool wgmma_fenced[1024];                   // of each thread: a wgmma.fence since it last waited

static inline Warpgroup& warpgroup() { return warpgroups[current->number / 128]; }
template <class F> static void meet_warpgroup(void* argument, const char* what, F execute, Orders orders = EXCHANGE) {
    meet(warpgroup().meeting, 128, current->number % 128, argument, what, execute, orders);
}

// An operand in shared memory, 128-byte swizzled, through its descriptor. `length` rows (M or N) of 16 numbers (K).
//     K-major    row r, number k: in rows of 128 bytes, 8 rows are 1024 bytes, groups of 8 rows `stride` apart
//     MN-major   row r, number k: 64 r's are a row of 128 bytes, k is the row; 8 k's to the next are `stride` apart,
//                64 r's to the next are `leading` apart
struct Operand {
    u32 start, leading, stride, layout;
    explicit Operand(u64 d)
        : start((d & 0x3fff) << 4), leading((d >> 16 & 0x3fff) << 4), stride((d >> 32 & 0x3fff) << 4),
          layout(d >> 62) {}
    u32 chunk(bool mn_major, int row, int k) const {             // address of 8 numbers along the major dimension
        u32 offset = mn_major ? row / 64 * leading + row % 64 * 2 + k % 8 * 128 + k / 8 * stride
                              : row / 8 * stride + row % 8 * 128 + k * 2;
        return swizzled(start + offset, 128);
    }
    void check(bool mn_major, int length, const char* name) const {
        std::string what = std::string("wgmma: descriptor of ") + name;
        if (layout != 1) return fail(what + " does not say 128-byte swizzle, the only one modelled");
        if (start % 1024 >= 128) return fail(what + " starts inside a swizzled pattern of 1024 bytes");
        if (stride % 1024 || leading % 1024) return fail(what + " has strides that are not multiples of 1024");
        for (int row = 0; row < length; row += mn_major ? 8 : 1)
            for (int k = 0; k < 16; k += mn_major ? 1 : 8) {
                if (chunk(mn_major, row, k) + 16 > dynamic_bytes) return fail(what + " leaves shared memory");
                check_fenced(chunk(mn_major, row, k), 16, "wgmma");
            }
    }
    template <class F> void read(bool mn_major, int length, F put) const {        // put(row, k, 16 bits)
        for (int row = 0; row < length; row += mn_major ? 8 : 1)
            for (int k = 0; k < 16; k += mn_major ? 1 : 8) {
                u32 at = chunk(mn_major, row, k);
                touch_shared(at, 16, READ, *current);
                u16 bits[8];
                memcpy(bits, arena + at, 16);
                for (int i = 0; i < 8; i++) put(row + (mn_major ? i : 0), k + (mn_major ? 0 : i), bits[i]);
            }
    }
};

static const float* half_values() {               // of all 65536 bit patterns
    static std::vector<float> values;
    if (values.empty()) for (u32 i = 0; i < 65536; i++) values.push_back(from_half((u16)i));
    return values.data();
}
static inline float number(u16 bits, bool is_bf16, const float* halves) {
    if (!is_bf16) return halves[bits];
    u32 u = (u32)bits << 16;
    float x;
    memcpy(&x, &u, 4);
    return x;
}
// C (64 x N) += A (64 x 16) B (16 x N) in float32
#if defined(__GNUC__) && !defined(__clang__)
__attribute__((optimize("O3")))
#endif
static void multiply(float* C, const float* A, const float* B, int N) {
    for (int r = 0; r < 64; r++)
        for (int k = 0; k < 16; k += 4) {
            const float *a = A + 16 * r + k, *b = B + (size_t)N * k;
            float a0 = a[0], a1 = a[1], a2 = a[2], a3 = a[3], *c = C + (size_t)N * r;
            for (int n = 0; n < N; n++) c[n] += (a0 * b[n] + a1 * b[N + n]) + (a2 * b[2 * N + n] + a3 * b[3 * N + n]);
        }
}

struct WgmmaArgument { float* d; const u32* a; u64 a_descriptor, b_descriptor; bool add; };
struct Wgmma {
    int N;
    bool is_bf16, a_in_registers, a_transposed, b_transposed, add;
    u64 a_descriptor, b_descriptor;
    float* d[128];
    u32 a[128][4];
    Warpgroup* group;

    void execute() const {
        static float A[64 * 16], B[16 * 256], C[64 * 256];
        const float* halves = half_values();
        auto value = [&](u16 bits) { return number(bits, is_bf16, halves); };
        Operand(b_descriptor).read(b_transposed, N, [&](int n, int k, u16 bits) { B[k * N + n] = value(bits); });
        if (!a_in_registers)
            Operand(a_descriptor).read(a_transposed, 64, [&](int r, int k, u16 bits) { A[r * 16 + k] = value(bits); });
        else
            for (int t = 0; t < 128; t++)         // as mma.m16n8k16's A, for each warp's 16 rows
                for (int i = 0; i < 8; i++) {
                    int row = t / 32 * 16 + t % 32 / 4 + i / 2 % 2 * 8, k = t % 4 * 2 + i / 4 * 8 + i % 2;
                    A[row * 16 + k] = value((u16)(a[t][i / 2] >> 16 * (i % 2)));
                }
        for_accumulators([&](float& x, int row, int n) { C[row * N + n] = add ? x : 0; });
        multiply(C, A, B, N);
        for_accumulators([&](float& x, int row, int n) { x = C[row * N + n]; });
        for (float* visible : d) {
            auto found = group->hidden.find(visible);
            if (found == group->hidden.end() || --found->second.products) continue;
            std::copy(found->second.value.begin(), found->second.value.end(), visible);
            group->hidden.erase(found);
        }
    }
    // f(number, row, column) of all threads: row g and g + 8 of the warp's 16, columns 8 j + 2 t and one more
    template <class F> void for_accumulators(F f) const {
        for (int t = 0; t < 128; t++) {
            auto found = group->hidden.find(d[t]);
            float* x = found == group->hidden.end() ? d[t] : found->second.value.data();
            for (int i = 0; i < N / 2; i++)
                f(x[i], t / 32 * 16 + t % 32 / 4 + i % 4 / 2 * 8, i / 4 * 8 + t % 4 * 2 + i % 2);
        }
    }
    void hide() const {
        for (float* visible : d) {
            Warpgroup::Hidden& h = group->hidden[visible];
            if (h.products++) continue;
            h.value.assign(visible, visible + N / 2);
            std::fill(visible, visible + N / 2, NAN);
        }
    }
};

// a: this thread's four registers of A, or null: A is in shared memory. `transposed` operands are MN-major.
static void wgmma(int N, bool is_bf16, float* d, const u32* a, u64 a_descriptor, u64 b_descriptor, bool add,
                  bool a_transposed, bool b_transposed) {
    if (!wgmma_fenced[current->number]) { fail("wgmma without wgmma.fence since the last wait"); check_failure(); }
    WgmmaArgument argument{d, a, a_descriptor, b_descriptor, add};
    meet_warpgroup(&argument, "wgmma", [&](void** slots) {
        count.wgmma++;
        Wgmma op{N, is_bf16, a != nullptr, a_transposed, b_transposed, add, a_descriptor, b_descriptor};
        op.group = &warpgroup();
        for (int t = 0; t < 128; t++) {
            auto& other = *(WgmmaArgument*)slots[t];
            if (other.a_descriptor != a_descriptor || other.b_descriptor != b_descriptor || other.add != add)
                return fail("wgmma: threads of the warpgroup give different descriptors");
            op.d[t] = other.d;
            if (a) memcpy(op.a[t], other.a, 16);
        }
        Operand(b_descriptor).check(b_transposed, N, "B");
        if (!a) Operand(a_descriptor).check(a_transposed, 64, "A");
        if (!error.empty()) return;
        if (!(late & 2)) return op.execute();
        op.hide();
        op.group->open.push_back([op] { op.execute(); });
    });
}
static void wgmma_fence() { wgmma_fenced[current->number] = true; }
static void wgmma_commit() {
    meet_warpgroup(nullptr, "wgmma.commit_group", [](void**) {
        warpgroup().committed.push_back(std::move(warpgroup().open));
        warpgroup().open.clear();
    });
}
static void wgmma_wait(int keep) {
    wgmma_fenced[current->number] = false;
    meet_warpgroup(nullptr, "wgmma.wait_group", [keep](void**) {
        auto& groups = warpgroup().committed;
        for (; (int)groups.size() > keep; groups.pop_front())
            for (auto& product : groups.front()) product();
    });
    // What products have read, in the name of one thread, is read for the whole warpgroup.
    if (checking) meet_warpgroup(nullptr, "wgmma.wait_group", [](void**) {}, ORDERS_MEMORY);
}

// ---- named barriers ------------------------------------------------------------------------------------------------
// The barrier opens when `members` threads have come to it, by sync (which waits) or by arrive (which goes on).
static void named_barrier_arrive(int id, int members) {
    Meeting& m = barriers[id];
    m.what = "a named barrier";
    if (checking) m.who.push_back({(u16)current->number, false, arrival_time()});
    progress++;
    if (++m.arrived >= members) {
        if (checking) order_arrivals(m);
        m.arrived = 0, m.turn++;
    }
    let_others_run();
}
static void named_barrier_sync(int id, int members) {
    meet(barriers[id], members, -1, nullptr, "a named barrier", [](void**) { count.barriers++; });
}

// ---- the core's hooks ----------------------------------------------------------------------------------------------
static void reset_hopper() {
    mbarriers.clear(), transfers.clear();
    memset(unfenced, 0, sizeof unfenced);
    memset(wgmma_fenced, 0, sizeof wgmma_fenced);
    for (auto& words : unfenced_by) words.clear();
    for (auto& groups : bulk_groups) groups = BulkGroups();
    for (auto& group : warpgroups) group = Warpgroup();
}
static const bool hopper_hooked = (engine_step = finish_some_transfer, reset_block = reset_hopper, true);
}  // namespace sim

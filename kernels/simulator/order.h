// What happened before what, while memory is checked: vector clocks.
//
// `now` grows with every arrival at a barrier; an access is stamped with it. A thread holds a Clock: everything that
// thread u did up to time seen[u] happened before. Threads that meet at a barrier leave it with one and the same Clock,
// so that a barrier costs little more than one number per thread.
#pragma once
namespace sim {
struct Clock {
    int holders;
    std::vector<u32> seen;
};
static std::vector<Clock*> unused_clocks;
static u32 now;                                   // grows through the whole launch, block by block
static u32 block_began;                           // before this are the accesses of other blocks

static Clock* new_clock(const Clock* copied) {
    Clock* c = unused_clocks.empty() ? new Clock() : unused_clocks.back();
    if (!unused_clocks.empty()) unused_clocks.pop_back();
    c->holders = 0;
    if (copied) c->seen = copied->seen; else c->seen.assign(threads.size(), block_began - 1);
    return c;
}
static void hold(Thread& t, Clock* c) {
    if (t.clock == c) return;
    if (t.clock && --t.clock->holders == 0) unused_clocks.push_back(t.clock);
    t.clock = c;
    if (c) c->holders++;
}
static void join(std::vector<u32>& into, const std::vector<u32>& from) {
    u32* a = into.data();
    const u32* b = from.data();
    for (size_t i = 0, n = from.size(); i < n; i++) a[i] = a[i] > b[i] ? a[i] : b[i];
}
static void begin_clocks() {                      // of a block
    block_began = ++now;
    Clock* c = new_clock(nullptr);
    for (Thread& t : threads) hold(t, c);
    now++;
}
static void end_clocks() { for (Thread& t : threads) hold(t, nullptr); }

static u32 arrival_time() { return now++; }
static void order_arrivals(Meeting& m) {
    u32 time = now++;
    for (Thread& t : threads)                     // those that have returned count as arrived
        if (t.done && (&m == &barriers[0] || (m.lanes >> t.number % 32 & 1 && m.warp == t.number / 32)))
            m.who.push_back({(u16)t.number, false, time});
    Clock* common = threads[m.who[0].thread].clock;
    int same = 0;
    for (auto& a : m.who) same += a.waits && threads[a.thread].clock == common;
    if (same != (int)m.who.size() || common->holders != same) {
        Clock* merged = new_clock(common);
        const Clock* last = common;
        for (auto& a : m.who) {
            const Clock* c = threads[a.thread].clock;
            if (c != last) join(merged->seen, c->seen);
            last = c;
        }
        for (auto& a : m.who) if (a.waits) hold(threads[a.thread], merged);
        common = merged;
    }
    for (auto& a : m.who) common->seen[a.thread] = std::max(common->seen[a.thread], a.time);
    m.who.clear();
}

// One-way order, as an mbarrier's: what threads did before release() happened before what others do after acquire().
struct Order { std::vector<u32> seen; };
static void release(Order& o, Thread& t, u32 time) {              // time: of the last access that counts
    if (!checking) return;
    if (o.seen.empty()) o.seen = t.clock->seen; else join(o.seen, t.clock->seen);
    o.seen[t.number] = std::max(o.seen[t.number], time);
}
static void release(Order& o) { if (checking) release(o, *current, now++); }
static void acquire(const Order& o) {
    if (!checking || o.seen.empty()) return;
    Clock* c = new_clock(current->clock);
    join(c->seen, o.seen);
    hold(*current, c);
}
}  // namespace sim

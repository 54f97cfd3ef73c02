// What a warp's ordinary loads and stores cost, by the line of the kernel they stand on, while memory is checked.
//
// The lanes' accesses of one line are put together by their number: the k-th of each lane are one request of the warp.
//     shared memory   32 banks of 4 bytes; addresses in different rows of one bank cost a pass each: a conflict
//     global memory   fetched in sectors of 32 bytes: the fewer for the bytes that are asked for, the better. Arrays
//                     begin at a sector, as on a GPU
#pragma once
namespace sim {
struct Request { u32 lanes = 0; u32 address[32]; };               // shared: bytes; global: sectors
struct Site {
    u32 place = 0, size = 0;
    Kind kind = READ;
    bool is_shared = false;
    u64 requests = 0, conflicts = 0, sectors = 0, bytes = 0;
    std::vector<std::vector<Request>> warps;      // requests of each warp since the last flush
    std::vector<u32> seen;                        // of each thread
    u64 pending = 0;
};
static std::vector<Site> sites;
static u32 site_table[4096];                      // place -> index + 1

static u32 conflicts_of(const Request& r, u32 size) {
    u32 group = size <= 4 ? 32 : size == 8 ? 16 : 8, extra = 0;   // lanes that are served together
    for (u32 first = 0; first < 32; first += group) {
        u32 rows[32][32], used[32] = {}, worst = 1;
        for (u32 l = first; l < first + group; l++) {
            if (!(r.lanes >> l & 1)) continue;
            for (u32 word = r.address[l] / 4; word <= (r.address[l] + size - 1) / 4; word++) {
                u32 bank = word % 32, k = 0;
                while (k < used[bank] && rows[bank][k] != word) k++;
                if (k == used[bank]) rows[bank][used[bank]++] = word;
                worst = std::max(worst, used[bank]);
            }
        }
        extra += worst - 1;
    }
    return extra;
}
static void flush_site(Site& s) {
    for (auto& warp : s.warps) {
        for (const Request& r : warp) {
            s.requests++;
            s.bytes += (u64)s.size * __builtin_popcount(r.lanes);
            if (s.is_shared) { s.conflicts += conflicts_of(r, s.size); continue; }
            u32 sectors[32], n = 0;
            for (int l = 0; l < 32; l++) if (r.lanes >> l & 1) sectors[n++] = r.address[l];
            std::sort(sectors, sectors + n);
            s.sectors += std::unique(sectors, sectors + n) - sectors;
        }
        warp.clear();
    }
    std::fill(s.seen.begin(), s.seen.end(), 0);
    s.pending = 0;
}
static void flush_sites() { for (Site& s : sites) if (s.pending) flush_site(s); }
static void clear_sites() {
    sites.clear();
    memset(site_table, 0, sizeof site_table);
}
static void visit_site(u32 place, u64 address, u32 n, Kind kind, bool is_shared, int thread) {
    u32 slot = place * 2654435761u >> 20;
    while (site_table[slot] && sites[site_table[slot] - 1].place != place) slot = (slot + 1) % 4096;
    if (!site_table[slot]) {
        if (sites.size() == 2048) return;
        sites.push_back(Site());
        Site& s = sites.back();
        s.place = place, s.size = n, s.kind = kind, s.is_shared = is_shared;
        s.warps.resize(warps.size()), s.seen.assign(threads.size(), 0);
        site_table[slot] = (u32)sites.size();
    }
    Site& s = sites[site_table[slot] - 1];
    auto& requests = s.warps[thread / 32];
    u32 k = s.seen[thread]++;
    if (k >= requests.size()) requests.resize(k + 1);
    Request& r = requests[k];
    r.lanes |= 1u << thread % 32;
    r.address[thread % 32] = is_shared ? (u32)(address % (1 << 20)) : (u32)(address / 32);
    if (++s.pending > 1 << 20) flush_site(s);
}
}  // namespace sim

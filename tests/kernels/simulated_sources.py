"""Small CUDA kernels for the tests of the simulator: right ones, and ones with a planted bug."""

RIGHT = r"""
#include "ptx.cuh"

struct Settings { int n; float scale; u64 big; };
extern "C" __global__ void arguments(const float* x, const float* none, float* out, Settings s, int i, float f, u64 u,
                                     double d, bf16 h) {
    if (threadIdx.x < (u32)s.n) out[threadIdx.x] = x[threadIdx.x] * s.scale;
    if (threadIdx.x == 0) {
        out[s.n] = none == nullptr, out[s.n + 1] = i, out[s.n + 2] = f, out[s.n + 3] = u == s.big, out[s.n + 4] = d;
        out[s.n + 5] = to_float(h);
    }
}

extern "C" __global__ void indices(int* out) {        // out (blocks z, y, x, threads z, y, x)
    u32 block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    u32 thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    u32 threads = blockDim.x * blockDim.y * blockDim.z;
    out[block * threads + thread] = 1000 * (int)block + (int)thread;
}

extern "C" __global__ void shuffles(const int* x, int* out, int argument, int width) {   // out (5, threads)
    int t = threadIdx.x, n = blockDim.x;
    out[t] = __shfl_sync(~0u, x[t], argument, width);
    out[n + t] = __shfl_xor_sync(~0u, x[t], argument, width);
    out[2 * n + t] = __shfl_down_sync(~0u, x[t], argument, width);
    out[3 * n + t] = __shfl_up_sync(~0u, x[t], argument, width);
    u32 half = t % 32 < 16 ? 0xffffu : 0xffff0000u;   // two groups of lanes, each with a mask of its own
    out[4 * n + t] = __shfl_sync(half, x[t], t % 32 < 16 ? 3 : 20);
}

extern "C" __global__ void votes(const int* x, u32* out) {        // out (8, threads)
    int t = threadIdx.x, n = blockDim.x;
    out[t] = __ballot_sync(~0u, x[t]), out[n + t] = __any_sync(~0u, x[t] == 3);
    out[2 * n + t] = __all_sync(~0u, x[t] < 9);
    out[3 * n + t] = __match_any_sync(~0u, x[t]), out[4 * n + t] = __reduce_add_sync(~0u, (u32)x[t]);
    out[5 * n + t] = __syncthreads_or(x[t] == 3), out[6 * n + t] = __syncthreads_and(x[t] < 9);
    out[7 * n + t] = __syncthreads_count(x[t] == 3);
}

extern "C" __global__ void halves(float* values, u16* back, u16* brain) {       // all 65536 of them, and back
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    float x = to_float(f16{(u16)i});
    values[i] = x, back[i] = from_float<f16>(x * 1.0009765625f).bits, brain[i] = from_float<bf16>(x * 1.01f).bits;
}

// C (16 x 8) = A (16 x 16) B (16 x 8), all by rows in memory; fragments through shared memory and ldmatrix
extern "C" __global__ void product(const f16* A, const f16* B, float* C) {
    __shared__ f16 a[16][16], b[16][8];
    int lane = threadIdx.x;
    for (int i = lane; i < 256; i += 32) a[i / 16][i % 16] = A[i];
    for (int i = lane; i < 128; i += 32) b[i / 8][i % 8] = B[i];
    __syncwarp();
    u32 fa[4], fb[4];
    float c[4] = {};
    ldmatrix_x4(fa, shared_address(&a[lane % 16][lane / 16 * 8]));
    ldmatrix_x4_trans(fb, shared_address(&b[lane % 16][0]));
    mma_m16n8k16<f16>(c, fa, fb[0], fb[1]);
    for (int i = 0; i < 4; i++) C[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = c[i];
}

extern "C" __global__ void matrices(const u16* x, u32* out) {     // what each lane gets: out (2, 32, 4)
    __shared__ u16 s[256];
    int lane = threadIdx.x;
    for (int i = lane; i < 256; i += 32) s[i] = x[i];
    __syncwarp();
    u32 r[4];
    for (int transposed = 0; transposed < 2; transposed++) {
        u32 row = shared_address(s + 8 * lane);
        if (transposed) ldmatrix_x4_trans(r, row); else ldmatrix_x4(r, row);
        for (int i = 0; i < 4; i++) out[(transposed * 32 + lane) * 4 + i] = r[i];
    }
}

// Two groups of copies; `keep` of them may be under way when their result is read.
extern "C" __global__ void copies(const float* x, float* out, int keep, int barrier) {
    DYN_SMEM(shared);
    float* s = (float*)shared;
    int t = threadIdx.x, other = blockDim.x - 1 - t;
    for (int group = 0; group < 2; group++) {
        int i = group * blockDim.x + t;
        cp_async16(shared_address(s + 4 * i), x + 4 * i);
        cp_async_commit();
    }
    if (keep == 0) cp_async_wait<0>(); else cp_async_wait<1>();
    if (barrier) __syncthreads();
    for (int i = 0; i < 4; i++) out[4 * t + i] = s[4 * (blockDim.x + other) + i];
}

extern "C" __global__ void leave_early(float* out) {  // threads that have returned are not waited for
    __shared__ int s[64];
    int t = threadIdx.x;
    s[t] = t;
    if (t >= 40) return;
    __syncthreads();
    int left = s[63 - t % 24];                        // by threads that have returned
    s[t] = left;
    if (t % 2) return;
    __syncwarp();
    out[t] = __shfl_xor_sync(~0u, (float)t, 2) + 100 * s[t + 1];
    __syncthreads();
}

extern "C" __global__ void atomics(int* sum, int* most, int* count, float* total) {
    atomicAdd(sum, (int)threadIdx.x), atomicMax(most, (int)(threadIdx.x + 100 * blockIdx.x));
    atomicAdd(total, 1.0f);
    atomicCAS(count, 0, 7);
}
"""

# Each kernel has one bug. x and out have as many numbers as a block has threads, where nothing else is said.
WRONG = r"""
#include "ptx.cuh"

extern "C" __global__ void no_barrier(const float* x, float* out) {       // reads what others wrote; then is read again
    __shared__ float s[64];
    s[threadIdx.x] = 0;
    __syncthreads();
    s[threadIdx.x] = x[threadIdx.x];
    out[threadIdx.x] = s[63 - threadIdx.x];           // no_barrier
}
extern "C" __global__ void no_second_barrier(const float* x, float* out) {        // writes while others still read
    __shared__ float s[64];
    float sum = 0;
    for (int i = 0; i < 2; i++) {
        s[threadIdx.x] = x[threadIdx.x] + i;          // no_second_barrier
        __syncthreads();
        sum += s[63 - threadIdx.x];
    }
    out[threadIdx.x] = sum;
}
extern "C" __global__ void reads_then_writes(const float* x, float* out) {       // what the other may still read
    __shared__ float s;
    if (threadIdx.x == 0) s = x[0];
    __syncthreads();
    out[threadIdx.x] = s;
    if (threadIdx.x == blockDim.x - 1) s = 0;         // reads_then_writes
}
extern "C" __global__ void warp_reads_then_writes(const float* x, float* out) {  // what another warp may still read
    __shared__ float s;
    if (threadIdx.x == 0) s = x[0];
    __syncthreads();
    out[threadIdx.x] = s;
    __syncwarp();
    if (threadIdx.x == 63) s = 0;                     // warp_reads_then_writes
}
extern "C" __global__ void no_syncwarp(const float* x, float* out) {
    __shared__ float s[32];
    s[threadIdx.x] = x[threadIdx.x];
    float y = __shfl_xor_sync(~0u, s[threadIdx.x], 1);            // orders no memory
    out[threadIdx.x] = s[31 - threadIdx.x] + y;       // no_syncwarp
}
extern "C" __global__ void divergent(float* out) {
    if (threadIdx.x < 16) __syncwarp(); else out[threadIdx.x] = __shfl_xor_sync(~0u, 1.0f, 1);    // divergent
}
extern "C" __global__ void deadlock(float* out) {
    if (threadIdx.x < 17) __syncwarp();               // deadlock
    __syncthreads();
}
extern "C" __global__ void reads_past_the_end(const float* x, float* out) {
    out[threadIdx.x] = x[threadIdx.x + 1];            // reads_past_the_end
}
extern "C" __global__ void writes_before_the_beginning(const float* x, float* out) {
    (out - 1)[threadIdx.x] = x[threadIdx.x];          // writes_before_the_beginning
}
extern "C" __global__ void null_pointer(const float* x, float* out) { out[threadIdx.x] = x[threadIdx.x]; }
extern "C" __global__ void dynamic_overflow(const float* x, float* out) { // 252 bytes were asked for
    DYN_SMEM(shared);
    ((float*)shared)[threadIdx.x] = x[threadIdx.x];   // dynamic_overflow
    out[threadIdx.x] = 0;
}
extern "C" __global__ void uninitialised(const float* x, float* out) {
    __shared__ float s[64];
    if (threadIdx.x != 5) s[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = s[threadIdx.x];                // uninitialised
}
extern "C" __global__ void keeps_shared(const float* x, float* out) {     // from one block to the next
    __shared__ float s[64];
    if (blockIdx.x == 0) s[threadIdx.x] = x[threadIdx.x];
    out[64 * blockIdx.x + threadIdx.x] = s[threadIdx.x];          // keeps_shared
}
extern "C" __global__ void reads_fresh(const float* x, float* out) {
    out[threadIdx.x] += x[threadIdx.x];               // reads_fresh
}
extern "C" __global__ void not_atomic(const float* x, float* out) {
    out[0] += x[threadIdx.x];                         // not_atomic
}
extern "C" __global__ void not_atomic_in_shared(const float* x, float* out) {
    __shared__ float sum;
    if (threadIdx.x == 0) sum = 0;
    __syncthreads();
    sum = sum + x[threadIdx.x];                       // not_atomic_in_shared
    __syncthreads();
    if (threadIdx.x == 0) out[0] = sum;
}
extern "C" __global__ void blocks_collide(const float* x, float* out) {
    if (threadIdx.x == 0) out[0] += x[blockIdx.x];    // blocks_collide
}
extern "C" __global__ void blocks_read_each_other(const float* x, float* out) {
    if (threadIdx.x == 0) out[blockIdx.x] = x[blockIdx.x];
    if (threadIdx.x == 1) out[4 + blockIdx.x] = out[(blockIdx.x + 1) % gridDim.x];        // blocks_read_each_other
}
extern "C" __global__ void blocks_read_then_one_writes(const float* x, float* out) {
    if (threadIdx.x) return;
    float y = out[0];
    out[1 + blockIdx.x] = y + x[0];
    if (blockIdx.x == 3) out[0] = y + 1;              // blocks_read_then_one_writes
}
extern "C" __global__ void atomic_and_plain(const float* x, float* out) {
    if (threadIdx.x == 0) out[0] = 0;                 // atomic_and_plain
    atomicAdd(out, x[threadIdx.x]);
}
extern "C" __global__ void misaligned(const float* x, float* out) {
    float4 v = *(const float4*)(x + threadIdx.x);     // misaligned
    out[threadIdx.x] = v.x + v.y + v.z + v.w;
}
extern "C" __global__ void read_only(float* x, float* out) { out[threadIdx.x] = 0, x[threadIdx.x] = 1; }
extern "C" __global__ void shared_half(const float* x, float* out) {      // neighbours share a word, not their halves
    __shared__ bf16 s[64];
    s[threadIdx.x] = from_float<bf16>(x[threadIdx.x]);
    if (blockIdx.x == 1) __syncthreads();
    out[64 * blockIdx.x + threadIdx.x] = to_float(s[threadIdx.x ^ 1]);    // shared_half: the first block has no barrier
}
extern "C" __global__ void wrong_lane(float* out) { out[threadIdx.x] = __shfl_sync(0xffffu, 1.0f, 20); }
extern "C" __global__ void fails_an_assertion(float* out) { assert(threadIdx.x < 3); }

// Block sums through memory; the last block to come adds them up. `fence` orders the blocks.
extern "C" __global__ void last_block(const float* x, float* partial, int* count, float* out, int fence) {
    if (threadIdx.x != 0) return;
    partial[blockIdx.x] = x[blockIdx.x];
    if (fence) __threadfence();
    if (atomicAdd(count, 1) != (int)gridDim.x - 1) return;
    float sum = 0;
    for (u32 i = 0; i < gridDim.x; i++) sum += partial[i];        // last_block
    out[0] = sum;
}
"""

CONFLICTS = r"""
#include "ptx.cuh"
extern "C" __global__ void strides(const float* x, float* out, int stride) {
    DYN_SMEM(shared);
    float* s = (float*)shared;
    for (int i = threadIdx.x; i < 1024; i += 32) s[i] = x[i];
    __syncthreads();
    out[threadIdx.x] = s[threadIdx.x * stride % 1024];            // strides
}
extern "C" __global__ void pairs(const float* x, float* out, int stride) {
    DYN_SMEM(shared);
    for (int i = threadIdx.x; i < 1024; i += 32) ((float*)shared)[i] = x[i];
    __syncthreads();
    float2 v = ((const float2*)shared)[threadIdx.x * stride];     // pairs
    ((float2*)out)[threadIdx.x] = v;
}
extern "C" __global__ void wide(const float* x, float* out, int stride) {
    DYN_SMEM(shared);
    for (int i = threadIdx.x; i < 1024; i += 32) ((float*)shared)[i] = x[i];
    __syncthreads();
    Pack<float> v = load16((float*)shared + 4 * threadIdx.x);     // wide
    store16(out + 4 * threadIdx.x, v);
}
"""

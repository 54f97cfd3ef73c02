// Embedding: rows of a table (V, D) looked up by id, and the sums of gradients by id.
//
//     out[i] = table[ids[i]]                         dtable[v] = sum of dout[i] over all i with ids[i] = v
//
// Forward: a warp copies a row, 16 bytes a lane.
//
// Backward, without atomics, the same bits on every run, and balanced even when one id has half of the rows. `order`
// holds the positions sorted by id, equal ids in the order they came (a stable sort). The sorted rows are cut into
// pieces of PIECE rows, and a block takes a piece and COLUMNS columns, a column to a thread:
//
//     sorted ids   3 3 3 5 | 5 5 5 5 | 5 5 7 7 | 7 9 9 9        pieces of 4 rows
//                  begins here, ends here: written to the table at once (3; 9, as its end is the end)
//                  begins here, goes on:   its sum so far is the piece's TAIL (5 in the first, 7 in the third)
//                  comes from the left:    its sum here is the piece's HEAD   (5 in pieces 2 and 3, 7 in the last)
//
// `join_pieces` then adds, for each TAIL, the HEADs behind it, from left to right, and writes the row.
//
// Sums are of float32 with what each addition loses kept in a second number: of 100 000 rows no digit is lost.
// Floor: dout is read once, in rows of D numbers; the rows that have an id are read and written once. 16384 x 4096 in
// bfloat16 on an H200 (4.3 TB/s): 31 us for dout; 62 us for forward, a copy.
#include "rows.cuh"

#define PIECE 32
#define COLUMNS 256                           // threads of a block of the backward pass, a column each

// ids (rows); an id outside 0 .. V - 1 gives NaN, and reads nothing. Grid: a warp for each row, WARPS to a block.
extern "C" __global__ void __launch_bounds__(THREADS)
embedding_forward(const long long* ids, const TYPE* table, TYPE* out, long long rows, long long V, int D) {
    long long r = team_row();
    if (r >= rows) return;
    long long id = ids[r];
    bool outside = id < 0 || id >= V;
    const TYPE* from = table + (outside ? 0 : id * D);
    for (int start = 0; start < D; start += CHUNK) {
        Numbers<TYPE> held[PACKS];
#pragma unroll
        for (int k = 0; k < PACKS; k++) held[k] = load_numbers(from, column(start, k), outside ? 0 : D, NAN);
#pragma unroll
        for (int k = 0; k < PACKS; k++) store_numbers(out + r * D, column(start, k), D, held[k]);
    }
}

struct Sum {
    float total, lost;                        // what the rounding of `total` has lost so far

    DEVICE void add(float x) {                // Knuth's two-sum: total + lost grows by x, but for lost's rounding
        float sum = total + x, part = sum - total;
        lost += (total - (sum - part)) + (x - part);
        total = sum;
    }
    DEVICE float value() { return fabsf(total) < INFINITY ? total + lost : total; }   // inf - inf = NaN is not lost
};

// table row `id` += sum. Row `padding` gets nothing.
DEVICE void add_to_table(TYPE* table, long long id, int D, int c, Sum sum, long long padding) {
    if (id == padding) return;
    TYPE& entry = table[id * D + c];
    sum.add(to_float(entry));
    entry = from_float<TYPE>(sum.value());
}

// dout (rows, D), order (rows), ids (rows) sorted, table (V, D) added into, ends (pieces, 2, D): HEAD, TAIL of a piece.
// Grid: pieces in x, columns in y.
extern "C" __global__ void __launch_bounds__(COLUMNS)
sum_pieces(const TYPE* dout, const long long* order, const long long* ids, TYPE* table, Sum* ends, long long rows,
           long long V, int D, long long padding) {
    int c = blockIdx.y * COLUMNS + threadIdx.x;
    long long first = (long long)blockIdx.x * PIECE, stop = first + PIECE < rows ? first + PIECE : rows;
    if (c >= D) return;
    Sum sum = {0.0f, 0.0f};
    long long begin = first;                  // of the run
    for (long long i = first; i < stop; i++) {
        long long id = ids[i];
        sum.add(to_float(dout[order[i] * D + c]));
        if (i + 1 < stop && ids[i + 1] == id) continue;                      // the run goes on
        bool from_left = begin == first && first > 0 && ids[first - 1] == id;
        bool to_right = i + 1 == stop && stop < rows && ids[stop] == id;
        if (from_left) ends[2ll * blockIdx.x * D + c] = sum;                 // HEAD, also of a run that fills the piece
        else if (to_right) ends[(2ll * blockIdx.x + 1) * D + c] = sum;       // TAIL
        else if (id >= 0 && id < V) add_to_table(table, id, D, c, sum, padding);
        sum = {0.0f, 0.0f};
        begin = i + 1;
    }
}

// The runs that go over the end of a piece: the piece where such a run begins finds its HEADs. Grid as above.
extern "C" __global__ void __launch_bounds__(COLUMNS)
join_pieces(const long long* ids, TYPE* table, const Sum* ends, long long rows, long long V, int D,
            long long padding) {
    int c = blockIdx.y * COLUMNS + threadIdx.x;
    long long first = (long long)blockIdx.x * PIECE, stop = first + PIECE;
    if (c >= D || stop >= rows) return;
    long long id = ids[stop - 1];
    bool goes_on = ids[stop] == id, begins_here = first == 0 || ids[first - 1] != id;
    if (!goes_on || !begins_here || id < 0 || id >= V) return;
    Sum sum = ends[(2ll * blockIdx.x + 1) * D + c];
    for (long long piece = blockIdx.x + 1; piece * PIECE < rows && ids[piece * PIECE] == id; piece++) {
        Sum head = ends[2 * piece * D + c];
        sum.add(head.total);
        sum.lost += head.lost;
    }
    add_to_table(table, id, D, c, sum, padding);
}

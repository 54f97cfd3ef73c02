// What the norms share beside rows.cuh: the sum of a row and a residual, which is normalised and returned.
#pragma once
#include "rows.cuh"

// total = x + residual, which is what `row` holds from here on; a row that does not fit is read back from there.
DEVICE void add_residual(Row<TYPE>& row, const TYPE* residual, TYPE* total) {
    int n = row.n;
    for (int start = row.begin; start < n; start += CHUNK) {
        row.fetch(start);
#pragma unroll
        for (int k = 0; k < PACKS; k++) {
            int i = column(start, k);
            Numbers<TYPE> x = row.pack(k), other = load_numbers(residual, i, n, 0.0f), sum;
#pragma unroll
            for (int e = 0; e < N; e++) sum.set(e, x[e] + other[e]);
            store_numbers(total, i, n, sum);
            row.held[k] = sum;
        }
    }
    row.row = total;
    row.aligned = aligned16(total + row.begin);
}

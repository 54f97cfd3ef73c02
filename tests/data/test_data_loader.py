from __future__ import annotations

import numpy as np
import pytest

from minillm.data import batches


@pytest.mark.parametrize("n, size, drop_last, lengths", [
    (10, 3, False, [3, 3, 3, 1]),
    (10, 3, True, [3, 3, 3]),
    (9, 3, True, [3, 3, 3]),
    (9, 3, False, [3, 3, 3]),
    (2, 5, False, [2]),
    (2, 5, True, []),
    (0, 5, False, []),
])  # fmt: skip
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_row_once_and_rows_stay_together(n, size, drop_last, lengths, shuffle):
    x, y = np.arange(2 * n, dtype=np.float32).reshape(n, 2), np.arange(n)
    parts = list(batches(x, y, batch_size=size, shuffle=shuffle, rng=np.random.default_rng(0), drop_last=drop_last))
    assert [len(a) for a, _ in parts] == lengths
    seen = [int(i) for _, b in parts for i in b]
    assert len(set(seen)) == len(seen) == sum(lengths)
    assert all((a == x[b]).all() and a.dtype == np.float32 for a, b in parts)
    if not shuffle:
        assert seen == list(range(len(seen)))


def test_the_order_is_that_of_the_rng():
    x = np.arange(50)

    def order(seed):
        return [int(i) for (part,) in batches(x, batch_size=7, rng=np.random.default_rng(seed)) for i in part]

    assert order(3) == np.random.default_rng(3).permutation(50).tolist()
    assert order(3) != order(4)
    rng = np.random.default_rng(0)
    first, second = (np.concatenate([b for (b,) in batches(x, batch_size=7, rng=rng)]) for _ in range(2))
    assert (first != second).any()


def test_wrong_calls_are_refused_before_the_first_batch():
    x = np.zeros(4)
    for message, call in {
        "lengths \\[4, 3\\]": lambda: batches(x, x[:3], batch_size=2, shuffle=False),
        "lengths \\[\\]": lambda: batches(batch_size=2, shuffle=False),
        "batch_size=0": lambda: batches(x, batch_size=0, shuffle=False),
        "shuffle=True needs rng": lambda: batches(x, batch_size=2),
    }.items():
        with pytest.raises(ValueError, match=message):
            call()

"""Packing: every pair of neighbours once, in few rows; a document's loss is what it is alone; no leak, to the bit."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minillm
from minillm import functional as F
from minillm import tensor
from minillm.data.errors import DataError
from minillm.models import GPT
from minillm.nn.plan import document_mask
from minillm.text.packing import best_fit, pack

DOCUMENTS = st.lists(st.lists(st.integers(0, 9), max_size=20), max_size=12)


@settings(deadline=None)
@given(documents=DOCUMENTS, context=st.integers(1, 9), separator=st.none() | st.integers(0, 9))
def test_every_pair_of_neighbours_is_in_once(documents, context, separator):
    whole = [d if separator is None else [*d, separator] for d in documents]
    pairs = Counter((a, b) for d in whole for a, b in pairwise(d))
    if not pairs:
        with pytest.raises(DataError, match="nothing to predict"):
            pack(documents, context, separator)
        return
    ids, targets, owners = pack(documents, context, separator)
    assert ids.shape == targets.shape == owners.shape and ids.shape[1] == context
    learned = targets != -100
    assert Counter(zip(ids[learned].tolist(), targets[learned].tolist())) == pairs
    assert learned.any(1).all()  # no row for nothing
    same = owners[:, 1:] == owners[:, :-1]
    inside = same & (owners[:, 1:] >= 0)
    np.testing.assert_array_equal(targets[:, :-1][inside], ids[:, 1:][inside])  # the next token of the same document
    assert (ids[owners < 0] == (separator or 0)).all() and not learned[owners < 0].any()


@settings(deadline=None)
@given(documents=DOCUMENTS, context=st.integers(1, 9))
def test_pieces_are_in_one_place_each_and_rows_are_full(documents, context):
    documents.append([1, 2])
    ids, targets, owners = pack(documents, context)
    pieces = [d[s : s + context] for d in documents for s in range(0, len(d) - 1, context)]
    for number, piece in enumerate(pieces):
        rows, columns = np.nonzero(owners == number)
        assert len(set(rows)) == 1 and (np.diff(columns) == 1).all()
        assert ids[rows, columns].tolist() == piece
    filled = (owners >= 0).sum(1)
    for r in range(len(filled)):
        assert (owners[r, : filled[r]] >= 0).all()  # padding at the end
        assert (filled[r] + np.delete(filled, r) > context).all()  # no two rows would go into one


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=50))
def test_few_rows(lengths):
    rows = best_fit(lengths, 20)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= 20 for row in rows)
    assert len(rows) < 2 * sum(lengths) / 20 + 1


def test_a_good_fit_is_found_where_first_come_first_served_finds_none():
    assert len(pack([[1] * n for n in (2, 7, 3, 8)], 10).ids) == 2


def test_a_separator_ends_each_document():
    ids, targets, owners = pack([[1, 2], [3]], 6, separator=9)
    assert ids.tolist() == [[1, 2, 9, 3, 9, 9]]
    assert targets.tolist() == [[2, 9, -100, 9, -100, -100]]
    assert owners.tolist() == [[0, 0, 0, 1, 1, -1]]


def test_what_is_refused():
    for documents, message in (
        (["abc"], "document 0 is text"), ([[1, 2], [0.5, 1]], "document 1 is float64"), ([[[1, 2]]], r"\(1, 2\)"),
        ([[1, -2]], "id -2"), ([], "nothing to predict"), ([[1], []], "nothing to predict"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=message):
            pack(documents, 4)
    with pytest.raises(DataError, match="context=0"):
        pack([[1, 2]], 0)
    with pytest.raises(DataError, match="separator=-1"):
        pack([[1, 2]], 4, separator=-1)


# ---------------------------------------------------------------------------------------- in a language model

rng = np.random.default_rng(0)
TEXTS = [rng.integers(0, 20, n) for n in (5, 9, 3, 12, 30, 2)]  # the fifth is cut: 16 and 14
MODELS = {
    "learned": {},
    "rotary": {"position": "rotary", "norm": "rms", "mlp": "swiglu", "kv_heads": 1, "qk_norm": True},
    "alibi": {"position": "alibi"},
    "window": {"position": "rotary", "window": 4},
}


def model_of(name, **more):
    minillm.manual_seed(0)
    model = GPT(vocab_size=20, context=16, layers=2, heads=2, width=16, **MODELS[name], **more)
    for p in model.parameters():  # away from the start, where all tokens are much alike
        if p.ndim == 2:
            p.data *= 8
    return model


@pytest.mark.parametrize("name", MODELS)
def test_a_documents_loss_in_a_row_is_its_loss_alone(name):
    model = model_of(name).double()
    ids, targets, owners = pack(TEXTS, 16)
    assert len(ids) == 4 and owners.max() == 6
    losses, counts = [], []
    for number in range(owners.max() + 1):
        mine = owners == number
        alone = model.loss(ids[mine][None], targets[mine][None]).item()
        packed = model.loss(ids, np.where(mine, targets, -100), documents=owners).item()
        assert packed == pytest.approx(alone, rel=1e-12)
        losses.append(alone)
        counts.append((targets[mine] != -100).sum())
    assert model.loss(ids, targets, documents=owners).item() == pytest.approx(np.average(losses, weights=counts))
    assert model.loss(ids, targets).item() != pytest.approx(np.average(losses, weights=counts), rel=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_another_document_changes_not_one_bit(name):
    model = model_of(name)
    ids, targets, owners = pack(TEXTS, 16)
    row = int(np.argmax([len(set(r[r >= 0])) for r in owners]))
    ids, targets, owners = (x[row : row + 1] for x in (ids, targets, owners))
    assert len(set(owners[0])) >= 3
    before = model(ids, documents=owners).numpy()
    for number in set(owners[0].tolist()):
        changed = np.where(owners == number, (ids + 7) % 20, ids)
        after = model(changed, documents=owners).numpy()
        np.testing.assert_array_equal(after[owners != number], before[owners != number])
        assert (after[owners == number] != before[owners == number]).any(-1).all()


@pytest.mark.parametrize("name", MODELS)
def test_no_gradient_from_one_document_to_another(name):
    model = model_of(name, tie=False)
    ids, targets, owners = pack([[1, 2, 3, 4], [11, 12, 13], [5, 6, 7]], 10)
    model.loss(ids, np.where(owners == 1, targets, -100), documents=owners).backward()
    reached = model.token.weight.grad.numpy().any(1)
    assert np.flatnonzero(reached).tolist() == [11, 12]  # 13 is seen by nothing that has a target


def test_the_mask_alone_in_attention():
    owners = np.array([[0, 0, 0, 1, 1, -1]])
    mask = document_mask(owners)
    x = rng.standard_normal((1, 2, 6, 4)).astype(np.float32)

    def run(x):
        return F.scaled_dot_product_attention(tensor(x), tensor(x), tensor(x), mask, is_causal=True).numpy()

    out, changed = run(x), x.copy()
    changed[:, :, :3] += 1
    np.testing.assert_array_equal(run(changed)[:, :, 3:], out[:, :, 3:])
    alone = x[:, :, 3:5]
    expected = F.scaled_dot_product_attention(alone, alone, alone, is_causal=True)
    np.testing.assert_allclose(out[:, :, 3:5], expected, rtol=1e-5)

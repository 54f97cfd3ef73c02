"""The cached, batched loop against the plainest one: the whole text through the model for each token."""

from __future__ import annotations

import numpy as np
import pytest

import minillm
from minillm import Generator
from minillm.generation import Reader, Sampling, generate, generate_ids
from minillm.generation.generate import row_generators
from minillm.models import GPT

CONTEXT, V = 12, 11
VARIANTS = {
    "learned": {},
    "rotary": {"position": "rotary"},
    "alibi": {"position": "alibi"},
    "none": {"position": "none"},
    "window": {"window": 3, "position": "rotary"},
    "grouped heads": {"kv_heads": 2, "position": "rotary", "norm": "rms", "mlp": "swiglu", "bias": False, "tie": False},
    "qk_norm": {"qk_norm": True},
    "softcap": {"softcap": 3.0},
    "experts": {"experts": 4, "capacity_factor": 1.0},
    "all": {
        "position": "alibi", "window": 5, "kv_heads": 1, "qk_norm": True, "softcap": 5.0, "mlp": "relu2", "experts": 2,
    },
}  # fmt: skip
every = pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
rng = np.random.default_rng(3)
PROMPTS = [rng.integers(0, V, n) for n in (3, 1, 7, 12, 30, 5)]


def made(settings: dict | None = None, dtype: str = "float64", **more) -> GPT:
    minillm.manual_seed(0)
    model = GPT(V, **{"context": CONTEXT, "layers": 2, "heads": 4, "width": 16, **(settings or {}), **more}).eval()
    for p in model.parameters():  # far from the start, where all branches matter
        p.data[...] += 0.3 * np.random.default_rng(p.numel()).normal(size=p.shape).astype(p.dtype)
    return model.to(dtype)


def views(length: int, new: int, context: int = CONTEXT):
    """How many of its last tokens the model sees before each new token."""
    seen = min(length, context)
    for _ in range(new):
        if seen > context:
            seen = max(1, context // 2)
        yield seen
        seen += 1


def plain(model: GPT, prompt, sampling: Sampling, new: int, generator=None, stops=()) -> list[int]:
    """What `generate` has to give, without cache, batch or padding."""
    text = [int(i) for i in prompt]
    for seen in views(len(text), new, model.config.context):
        logits = model(np.array([text[-seen:]])).numpy()[0, -1].astype(np.float64)
        text.append(sampling.choose(logits, text, generator))
        if text[-1] in stops:
            break
    return text


# ------------------------------------------------------------------------------------ the cached path is the plain one


@every
def test_logits_of_every_step_are_those_of_the_plain_path(settings):
    model = made(settings)
    reader = Reader(model, PROMPTS)
    texts = [p.tolist() for p in PROMPTS]
    seen = [list(views(len(p), 40)) for p in PROMPTS]
    logits, random = reader.first(), np.random.default_rng(1)
    for step in range(40):
        for b, text in enumerate(texts):
            want = model(np.array([text[-seen[b][step] :]])).numpy()[0, -1]
            np.testing.assert_allclose(logits[b], want, rtol=1e-8, atol=1e-10, err_msg=f"step {step}, text {b}")
        tokens = random.integers(0, V, len(texts))
        for text, token in zip(texts, tokens):
            text.append(int(token))
        logits = reader.step(tokens)


@every
@pytest.mark.parametrize("sampling", [Sampling(0), Sampling(1.3, 8, 0.95, 0.01, 1.1)], ids=["greedy", "sampled"])
def test_a_batch_gives_each_prompt_what_it_gets_alone(settings, sampling):
    model = made(settings)
    together = generate(model, PROMPTS, sampling, max_new_tokens=25, seed=9)
    for prompt, got in zip(PROMPTS, together):
        assert got.dtype == np.int64 and len(got) == len(prompt) + 25
        np.testing.assert_array_equal(got, generate(model, [prompt], sampling, max_new_tokens=25, seed=9)[0])
        np.testing.assert_array_equal(got, plain(model, prompt, sampling, 25, row_generators(9, [prompt])[0]))


@pytest.mark.parametrize("context", [1, 2, 3, 5])
def test_small_contexts(context):
    model = made(context=context)
    prompts = [rng.integers(0, V, n) for n in (1, 2, 9)]
    for prompt, got in zip(prompts, generate(model, prompts, Sampling(0), max_new_tokens=12)):
        np.testing.assert_array_equal(got, plain(model, prompt, Sampling(0), 12))


def test_the_model_is_left_as_it_was():
    model = made(dropout=0.5).train()
    model.blocks[0].eval()
    modes = [m.training for m in model.modules()]
    a, b = (generate(model, [[1, 2]], Sampling(0), max_new_tokens=9)[0] for _ in range(2))
    np.testing.assert_array_equal(a, b)  # no dropout
    assert [m.training for m in model.modules()] == modes
    assert all(p.grad is None for p in model.parameters())


def test_float32_and_unsigned_ids():
    model = made(dtype="float32")
    (got,) = generate(model, [np.array([1, 2, 3], np.uint8)], Sampling(0), max_new_tokens=5)
    np.testing.assert_array_equal(got, plain(model, [1, 2, 3], Sampling(0), 5))


# ------------------------------------------------------------------------------------------------- seeds


def test_seeds_and_places():
    model = made()
    prompts = [[1, 2], [3], [1, 2], [4, 5, 6], [1, 2]]
    a = generate(model, prompts, max_new_tokens=20, seed=5)
    b = generate(model, prompts, max_new_tokens=20, seed=5)
    c = generate(model, prompts, max_new_tokens=20, seed=6)
    for x, y, z in zip(a, b, c):
        np.testing.assert_array_equal(x, y)
        assert not np.array_equal(x, z)
    assert len({tuple(a[i].tolist()) for i in (0, 2, 4)}) == 3  # equal prompts: different texts
    backwards = generate(model, prompts[::-1], max_new_tokens=20, seed=5)
    np.testing.assert_array_equal(backwards[1], a[3])
    np.testing.assert_array_equal(backwards[3], a[1])
    np.testing.assert_array_equal(backwards[0], a[0])  # the first of its kind


def test_streams_of_the_rows_are_independent():
    """Two prompts after which the model is equally unsure do not get the same text."""
    model = made()
    for p in model.parameters():
        p.data[...] = 0  # all tokens equally likely
    a, b = generate(model, [[1], [2]], max_new_tokens=400, seed=0)
    assert abs((a[1:] == b[1:]).mean() - 1 / V) < 0.07


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_what_is_no_seed(seed):
    with pytest.raises(ValueError, match="seed"):
        generate(made(), [[1]], max_new_tokens=1, seed=seed)


def test_first_tokens_follow_the_models_probabilities():
    from scipy.stats import chisquare

    model = made()
    logits = model(np.array([[1, 2]])).numpy()[0, -1] / 1.5
    p = np.exp(logits - logits.max())
    p /= p.sum()
    texts = generate(model, [[1, 2]] * 3000, Sampling(1.5), max_new_tokens=1, seed=1)
    counts = np.bincount([t[-1] for t in texts], minlength=V)
    rare = p * 3000 < 5
    observed = [*counts[~rare], counts[rare].sum()] if rare.any() else counts
    expected = [*(3000 * p[~rare]), 3000 * p[rare].sum()] if rare.any() else 3000 * p
    assert chisquare(observed, expected).pvalue > 1e-3


# ------------------------------------------------------------------------------------------- where texts end


def test_stop_tokens_end_their_own_row():
    model = made()
    free = generate(model, PROMPTS, max_new_tokens=30, seed=2)
    stops = {4, 7}
    stopped = generate(model, PROMPTS, max_new_tokens=30, seed=2, stop=stops)
    for prompt, whole, got in zip(PROMPTS, free, stopped):
        new = whole[len(prompt) :].tolist()
        end = next((i + 1 for i, t in enumerate(new) if t in stops), 30)
        np.testing.assert_array_equal(got, whole[: len(prompt) + end])
    assert len({len(got) - len(prompt) for prompt, got in zip(PROMPTS, stopped)}) > 2  # rows ended at different times


def test_on_token_sees_every_token_and_can_end_a_text():
    model, heard = made(), [[] for _ in PROMPTS]

    def on_token(i, token):
        heard[i].append(token)
        return i == 2 and len(heard[i]) == 4

    texts = generate(model, PROMPTS, max_new_tokens=10, seed=2, on_token=on_token)
    for prompt, text, tokens in zip(PROMPTS, texts, heard):
        assert text[len(prompt) :].tolist() == tokens
    assert [len(h) for h in heard] == [10, 10, 4, 10, 10, 10]


def test_ids_beyond_a_smaller_vocabulary_are_never_chosen():
    model = made()
    free, fewer = (
        generate(model, [[1]] * 30, Sampling(2.0), max_new_tokens=20, seed=1, vocab_size=v) for v in (None, 7)
    )
    assert max(map(max, free)) == 10 and max(map(max, fewer)) == 6
    p = np.exp(model(np.array([[1]])).numpy()[0, -1, :7] / 2)
    first = np.bincount([t[1] for t in generate(model, [[1]] * 2000, Sampling(2.0), max_new_tokens=1, vocab_size=7)])
    np.testing.assert_allclose(first / 2000, p / p.sum(), atol=0.05)


def test_nothing_to_do():
    model = made()
    assert generate(model, [], max_new_tokens=5) == []
    np.testing.assert_array_equal(generate(model, [[1, 2]], max_new_tokens=0)[0], [1, 2])


# ------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("prompts", "more", "error", "message"),
    [
        ([[1], []], {}, ValueError, "prompt is empty"),
        ([[1, 11]], {}, ValueError, "token 11 is outside the model's vocabulary of ids 0 to 10"),
        ([[1], [-1]], {}, ValueError, "token -1 is outside"),
        ([[0.5]], {}, TypeError, "integer ids"),
        ([1, 2], {}, ValueError, "several prompts are a list"),
        ([[1]], {"max_new_tokens": -1}, ValueError, "max_new_tokens"),
        ([[1]], {"stop": [11]}, ValueError, "stop token 11"),
        ([[1]], {"generators": []}, ValueError, "one for each"),
    ],
)
def test_what_is_refused(prompts, more, error, message):
    with pytest.raises(error, match=message):
        generate(made(), prompts, **{"max_new_tokens": 3, **more})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_broken_weights_are_said(value):
    model = made()
    model.norm.bias.data[0] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        generate(model, [[1, 2]], Sampling(0), max_new_tokens=3)


# -------------------------------------------------------------------------------------------- one text


def test_one_text_draws_from_the_generator_it_was_given():
    model = made()
    got = generate_ids(model, [1, 2, 3], 20, 1.2, 6, Generator(4))
    np.testing.assert_array_equal(got, plain(model, [1, 2, 3], Sampling(1.2, 6), 20, Generator(4)))
    minillm.manual_seed(4)
    np.testing.assert_array_equal(generate_ids(model, [1, 2, 3], 20, 1.2, 6), got)
    np.testing.assert_array_equal(generate_ids(model, minillm.tensor([1, 2, 3]), 20, 1.2, 6, Generator(4)), got)


# ------------------------------------------------------------------------------------------- other devices


ON_A_DEVICE = ["learned", "rotary", "alibi", "window", "grouped heads", "qk_norm", "softcap", "experts"]


@pytest.mark.parametrize("name", ON_A_DEVICE)
def test_on_a_device(name):
    """The device "strict" refuses what a GPU's arrays refuse: nothing is mixed up on the way."""
    from minillm.generation import beam_search
    from minillm.testing import strict

    strict.install()
    model, results = made(VARIANTS[name], "float32"), []
    for device in ("cpu", "strict"):
        model.to(device)
        results.append(generate(model, PROMPTS, Sampling(1.3, 8, 0.95), max_new_tokens=20, seed=9, stop=[4]))
        results[-1] += [h.ids for h in beam_search(model, PROMPTS[0], max_new_tokens=5, beams=3, stop=[4])]
    for a, b in zip(*results, strict=True):
        assert isinstance(b, np.ndarray)
        np.testing.assert_array_equal(a, b)


# -------------------------------------------------------------------------------------------- the reader


def test_select_copies_and_leaves_out():
    model = made({"position": "rotary"})
    reader = Reader(model, PROMPTS[:3])
    reader.first()
    reader.select([2, 0, 2, 2])
    logits = reader.step([1, 2, 3, 4])
    for row, source, token in ((0, 2, 1), (1, 0, 2), (2, 2, 3), (3, 2, 4)):
        want = model(np.array([[*PROMPTS[source], token]])).numpy()[0, -1]
        np.testing.assert_allclose(logits[row], want, rtol=1e-9, atol=1e-11)


def test_the_cache_is_no_larger_than_needed_and_is_used():
    model = made()
    sizes, hidden = [], model.hidden
    model.hidden = lambda ids, cache=None: sizes.append(ids.shape) or hidden(ids, cache)
    generate(model, [[1, 2, 3], [4]], Sampling(0), max_new_tokens=4)
    assert sizes == [(2, 3), (2, 1), (2, 1), (2, 1)]  # each token once
    reader = Reader(model, [[1, 2, 3]], 7)
    reader.first()
    assert reader.cache.capacity == 7

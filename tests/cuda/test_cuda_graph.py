"""Recorded steps, with a made-up cupy whose graphs run the step again: order of calls, memory, gradients, refusals."""

from __future__ import annotations

import fake_cupy
import numpy as np
import pytest
from gpu_stand_in import kernels_on_strict

import minillm
from minillm import functional as F
from minillm import optim
from minillm.cuda import graph
from minillm.errors import GraphError
from minillm.generation import generate
from minillm.generation.recorded import RecordedStep
from minillm.models import GPT
from minillm.tensor import Tensor


@pytest.fixture
def cupy(monkeypatch):
    kernels_on_strict(monkeypatch)
    with fake_cupy.installed(monkeypatch) as module:
        yield module


def replaying(run, step):
    """Let the made-up graph do what a real one would: the step on the recorded inputs, into the recorded arrays."""

    def replay():
        held = [(p, g.data, p.grad) for p, g in run._gradients]
        rows = [(flat, flat.grad, flat.grads) for flat, _, _ in run._rows]
        run._forget_gradients()
        out = step(*run.inputs)
        for p, array, _ in held:
            array[...] = p.grad.data
        for p, _, grad in held:
            p.grad = grad
        for flat, grad, grads in rows:
            flat.grad, flat.grads = grad, grads
        run.outputs.data[...] = out.data

    fake_cupy.Stream.graphs[-1].replay = replay
    return run


def model_and_data(device="strict"):
    minillm.manual_seed(0)
    model = GPT(11, context=8, layers=1, heads=2, width=8).to(device)
    ids = [minillm.tensor(np.random.default_rng(i).integers(0, 11, (3, 9))).to(device) for i in range(4)]
    return model, optim.AdamW(optim.decay_groups(model, 0.1), lr=1e-2), ids


def test_the_order_of_things(cupy):
    x = minillm.ones(3, device="strict")
    seen = []

    def step(a):
        seen.append(cupy.cuda.get_current_stream().name)
        fake_cupy.Stream.log.append("step")
        return a * 2

    run = graph(step, x, warmup=2)
    assert fake_cupy.Stream.log == [
        "main records", "side waits for main", "own pool", "step", "step", "begin", "step", "end", "side records",
        "main waits for side",
    ]  # fmt: skip
    assert seen == ["side"] * 3
    assert run.inputs[0].data is not x.data and not run.outputs.requires_grad
    replaying(run, step)
    for value in (3.0, 5.0):
        out = run(minillm.full((3,), value, device="strict"))
        assert out is run.outputs and out.tolist() == [2 * value] * 3
    assert run(np.full(3, 4.0, np.float32)).tolist() == [8, 8, 8]  # from main memory


def test_a_recorded_training_is_the_training(cupy):
    model, optimizer, ids = model_and_data()

    def step(x):
        assert all(p.grad is None for p in model.parameters())  # each run writes gradients, none adds to the last one's
        loss = model.loss(x[:, :-1], x[:, 1:])
        loss.backward()
        return loss

    start = model.state_dict()
    run = replaying(graph(step, ids[0], parameters=model.parameters()), step)
    assert all(np.array_equal(v, start[k]) for k, v in model.state_dict().items())
    launches, losses = [], []
    for x in ids:
        optimizer.zero_grad()
        losses.append(run(x).item())
        launches.append([flat.whole_grad() is not None for flats in optimizer._flats for flat in flats])
        optimizer.step(clip_norm=0.5)
    assert all(all(whole) for whole in launches)  # gradients lie side by side: one launch a group
    other, plain, ids = model_and_data("cpu")
    for x, loss in zip(ids, losses):
        plain.zero_grad()
        value = other.loss(x[:, :-1], x[:, 1:])
        value.backward()
        plain.step(clip_norm=0.5)
        assert loss == pytest.approx(value.item(), rel=1e-5)
    for key, value in other.state_dict().items():
        np.testing.assert_allclose(model.state_dict()[key], value, rtol=1e-3, atol=1e-5)


def test_what_cannot_be_recorded_is_refused_in_a_sentence(cupy):
    x, w = minillm.ones(3, device="strict"), minillm.ones(3, device="strict").requires_grad_()
    optimizer = optim.SGD([w], lr=0.1)
    both = optim.Optimizers([optim.AdamW([minillm.ones(2).requires_grad_()])])
    model = GPT(11, context=8, layers=1, heads=2, width=8).to("strict")
    cache = model.new_cache(1)
    steps = {
        "random numbers are drawn at a seed.*set dropout to 0": lambda a: F.dropout(a, 0.5),
        "learning rate and a step count.*after the graph": lambda a: optimizer.step() or a,
        "learning rate and a step count.*step\\(\\) after": lambda a: both.step() or a,
        "a KV cache is written.*steady": lambda a: model(minillm.ones(1, 1, device="strict", dtype=np.int64), cache),
    }
    for says, step in steps.items():
        with pytest.raises(GraphError, match=says):
            graph(step, x)
    assert "begin" not in fake_cupy.Stream.log  # refused before a recording that would break
    F.dropout(x, 0.5)  # and fine again afterwards
    optimizer.step()


def test_copies_from_main_memory_are_refused_in_the_recording(cupy):
    """In the warm-up they are fine: tables that are made once are made there."""
    x, table, runs = minillm.ones(3, device="strict"), {}, []

    def once(a):
        runs.append("once")
        if not table:
            table["it"] = minillm.tensor([1.0, 2.0, 3.0]).to("strict")
        return a + table["it"]

    def always(a):
        runs.append("always")
        return a + minillm.tensor([1.0, 2.0, 3.0]).to("strict")

    graph(once, x)
    with pytest.raises(GraphError, match="copied between main memory and the GPU.*copy it before"):
        graph(always, x)
    assert runs == ["once"] * 3 + ["always"] * 3 and fake_cupy.Stream.log[-1] == "end"
    with pytest.raises(GraphError, match="more than 8 arrays.*in parts"):
        graph(lambda a: F.cat([a] * 9), x)
    graph(lambda a: F.cat([a] * 8), x)


def test_a_wait_in_a_recording_is_explained(cupy):
    recording = []

    def step(a):
        recording.append(fake_cupy.Stream.log[-1:] == ["begin"])
        if recording[-1]:
            raise fake_cupy.CUDARuntimeError(
                "cudaErrorStreamCaptureUnsupported: operation not permitted when capturing"
            )
        return a

    with pytest.raises(GraphError, match=r"waits for the GPU.*count_syncs.*cudaErrorStreamCaptureUnsupported"):
        graph(step, minillm.ones(1, device="strict"))
    assert recording == [False, False, True] and fake_cupy.Stream.log[-1] == "end"
    assert cupy.cuda.get_current_stream().name == "main"

    def broken(a):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        graph(broken, minillm.ones(1, device="strict"))


def test_other_shapes_are_refused(cupy):
    run = graph(lambda a: a * 2, minillm.ones(3, device="strict"))
    with pytest.raises(ValueError, match=r"input 0 is float32 \(4,\).*recorded for float32 \(3,\)"):
        run(minillm.ones(4, device="strict"))
    with pytest.raises(ValueError, match="int64"):
        run(minillm.ones(3, device="strict", dtype=np.int64))
    with pytest.raises(TypeError, match="1 inputs, got 2"):
        run(1, 2)


# -------------------------------------------------------------------------------------------------- decoding

GPTS = {
    "learned": {},
    "rotary": {"position": "rotary", "norm": "rms", "mlp": "swiglu", "kv_heads": 1, "qk_norm": True},
    "window": {"window": 3, "softcap": 5.0},
}


def gpt(settings, device="cpu"):
    minillm.manual_seed(0)
    return GPT(11, context=12, layers=2, heads=2, width=8, **settings).to(device).eval()


def eager(step, first):
    """As `graph`: no recording, the step itself."""

    def run(ids):
        from minillm import capture

        with capture.into_a_graph():
            return step(Tensor(np.asarray(ids)))

    run(first.numpy())
    return run


@pytest.mark.parametrize("start", [None, [2, 0]], ids=["whole", "padded"])
@pytest.mark.parametrize("name", GPTS)
def test_a_steady_step_gives_the_logits_of_an_ordinary_one(name, start):
    model = gpt(GPTS[name])
    ids = np.random.default_rng(0).integers(0, 11, (2, 11))
    plain, steady = model.new_cache(2, start=start), model.new_cache(2, start=start)
    for x in [*steady.keys, *steady.values]:
        x[...] = np.nan  # what new memory may hold
    with minillm.no_grad():
        model.hidden(ids[:, :4], plain)
        model.hidden(ids[:, :4], steady)
        step = RecordedStep(model, steady, eager)
        for t in range(4, 11):
            expected = model.logits(model.hidden(ids[:, t : t + 1], plain)[:, -1]).numpy()
            np.testing.assert_allclose(step(ids[:, t]), expected, rtol=1e-4, atol=1e-5)
            assert steady.length == plain.length == steady.place[0] == t + 1
    with pytest.raises(ValueError, match="do not fit"):
        step(ids[:, 0])
        step(ids[:, 0])


@pytest.mark.parametrize("name", GPTS)
def test_recorded_generation_writes_the_same_texts(name, cupy, monkeypatch):
    """Through ends of texts (fewer rows) and a full context (a new cache): each has a recording of its own."""
    begun = []

    def recording(step, first):
        begun.append(first.shape)
        return eager_on_strict(step, first)

    def eager_on_strict(step, first):
        from minillm import capture

        def run(ids):
            with capture.into_a_graph():
                return step(minillm.tensor(np.asarray(ids)).to("strict"))

        run(np.zeros(first.shape, np.int64))
        return run

    monkeypatch.setattr("minillm.generation.recorded.RecordedStep.__init__.__defaults__", (recording,))
    prompts = [[1, 2, 3], [4], [5, 6]]
    expected = generate(gpt(GPTS[name]), prompts, max_new_tokens=20, stop=[7], seed=3)
    got = generate(gpt(GPTS[name], "strict"), prompts, max_new_tokens=20, stop=[7], seed=3, recorded=True)
    assert [a.tolist() for a in got] == [b.tolist() for b in expected]
    assert len(begun) > 1


def test_a_steady_cache_says_what_it_cannot():
    model, alibi = gpt({}), gpt({"position": "alibi"})
    for m, tokens in ((model, 2), (alibi, 1)):
        cache = m.new_cache(1)
        cache.steady()
        with pytest.raises(ValueError, match=f"one token of each row, and no ALiBi; got {tokens} tokens"):
            m.hidden(np.zeros((1, tokens), np.int64), cache)


def test_a_steady_cache_can_go_back():
    model = gpt({})
    ids = np.arange(8)[None]
    one, other = model.new_cache(1), model.new_cache(1)
    for cache in (one, other):
        model.hidden(ids[:, :3], cache)
    other.steady()
    model.hidden(ids[:, 3:4], one)
    model.hidden(ids[:, 3:4], other)
    for cache in (one, other):
        cache.truncate(3)
        model.hidden(ids[:, 4:5], cache)
    other.steady(False)
    a, b = (model.hidden(ids[:, 5:7], cache).numpy() for cache in (one, other))
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)

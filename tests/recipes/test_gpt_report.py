"""The report about a language model: all that it promises, for runs of many steps, of one and of none."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from minillm.baselines import NGram
from minillm.explain import Report
from minillm.explain.metric import Metric
from minillm.models import GPT
from minillm.recipes import gpt, gpt_report
from minillm.recipes.base import Common
from minillm.recipes.gpt_settings import Settings
from minillm.training.observer import Silent

TINY = {"layers": 2, "heads": 2, "width": 16, "context": 16, "batch_size": 4, "steps": 6, "every": 2, "sample": 20}
WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "ate", "rat", "while", "it", "rained"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(" ".join(rng.choice(WORDS, 1500)))
    return str(path)


def page(outcome) -> str:
    report = Report("a test")
    outcome.draw(report)
    return report.html()


def trained(text, observer=None, **settings):
    return gpt.train(Settings(**{**TINY, **settings}), Common(text, progress=False, observer=observer))


def captions(html) -> list[str]:
    return re.findall(r"<figcaption>(.*?)</figcaption>", html)


def cells(html, table) -> list[list[str]]:
    body = re.findall(r"<tbody>(.*?)</tbody>", html, re.DOTALL)[table]
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in body.split("</tr>") if "<td" in row]


def test_all_that_a_reader_wants_to_see(text):
    outcome = trained(text)
    html = page(outcome)
    alts = re.findall(r'<img[^>]*alt="([^"]*)"', html)
    for wanted in ("Cross-entropy against step", "Learning rate and gradient norm", "Bars of the memory",
                   "Grid of attention", "Attention maps of the last", "For each character",
                   "Bars of the next character"):  # fmt: skip
        assert any(alt.startswith(wanted) for alt in alts), wanted
    assert [label for label in captions(html) if label.startswith("step")] == ["step 0", "step 2", "step 4", "step 6"]
    counts = cells(html, 0)
    assert [row[0] for row in counts] == [*(f"{k}-gram counts" for k in range(1, 8)), "this model"]
    costs = cells(html, 1)
    assert [row[0] for row in costs] == ["embedding", "2 x attention", "2 x mlp", "norm, head, loss", "total"]
    assert costs[-1][1] == f"{outcome.model.num_parameters():,}"


def test_the_counts_are_those_of_the_text(text):
    outcome = trained(text, steps=1)
    html, (metric,) = page(outcome), outcome.metrics
    ids = outcome.extras["tokenizer"]
    raw = Path(text).read_text()
    codes = np.searchsorted(sorted(set(raw)), list(raw))
    train, held_out = codes[: int(0.9 * len(raw))], codes[int(0.9 * len(raw)) :]
    expected = [NGram(k).fit(train, len(set(raw))).cross_entropy(held_out) for k in range(1, 8)]
    np.testing.assert_allclose([float(row[1]) for row in cells(html, 0)[:7]], expected, rtol=1e-3)
    np.testing.assert_allclose([float(row[2]) for row in cells(html, 0)[:7]], np.exp(expected), rtol=1e-3)
    assert ids["type"] == "characters" and isinstance(metric, Metric)
    assert metric.floor == pytest.approx(min(expected))
    assert metric.floor_name == f"{int(np.argmin(expected)) + 1}-gram counts"
    assert float(cells(html, 0)[-1][1]) == pytest.approx(metric.value, rel=1e-3)


class StopAtOnce(Silent):
    def on_row(self, row):
        raise KeyboardInterrupt


def test_a_training_that_was_stopped_before_its_first_step(text):
    outcome = trained(text, observer=StopAtOnce())
    assert len(outcome.history) == 1 and outcome.history.interrupted and not outcome.history.trace.curve("lr")
    html = page(outcome)
    assert "Learning rate" not in html and "step 0" in captions(html)
    outcome.history.rows.clear()  # not even that
    assert "Cross-entropy against" not in page(outcome)


def test_one_step(text):
    html = page(trained(text, steps=1, layers=1, clip_norm=0.0, sample=0))
    assert "Learning rate" in html and "dashed line is shortened" not in html
    assert "Grid of attention" not in html  # the last layer, larger, is all there is
    assert "What it writes" not in html


@pytest.mark.slow
def test_many_heads_are_capped_and_it_says_so(text):
    html = page(trained(text, steps=1, layers=9, heads=10, width=20))
    assert "Of 9 layers and 10 heads at most 8 and 8 are shown." in html
    assert "8 of its 10 heads" in html


def test_long_trainings_say_what_a_point_is(text):
    outcome = trained(text, steps=1)
    for step in range(2, 600):
        outcome.history.trace.add(step=step, loss=2.0, lr=0.1, grad_norm=1.0)
    assert f"Each point is the mean of {outcome.history.trace.stride} steps." in page(outcome)


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
def test_other_tokens(text, tokenizer):
    if tokenizer == "bpe":
        pytest.importorskip("tokenizers")
    unit = {"bytes": "byte", "bpe": "token"}[tokenizer]
    outcome = trained(text, tokenizer=tokenizer, vocab_size=300, steps=2)
    html = page(outcome)
    assert f"nats per {unit}" in html and len(cells(html, 0)) == 8


@pytest.mark.parametrize("settings", [
    {"checkpoint_blocks": True}, {"optimizer": "muon"}, {"ema": 0.9}, {"lora_rank": 2}, {"experts": 2},
])  # fmt: skip
def test_memory_of_each_kind_of_training(text, settings, monkeypatch):
    seen = []
    monkeypatch.setattr(gpt, "memory_of", lambda *a: seen.append(gpt_report.memory_of(*a)) or seen[-1])
    outcome = trained(text, **settings)
    html = page(outcome)
    (memory,) = seen
    trained_as, other = memory
    again, kept = "blocks computed again", "blocks kept"
    assert (trained_as, other) == ((again, kept) if "checkpoint_blocks" in settings else (kept, again))
    assert f"as it was trained ({trained_as})" in html
    assert memory[again]["activations"] < memory[kept]["activations"]
    assert outcome.model.checkpoint_blocks == ("checkpoint_blocks" in settings)  # looked at, not changed
    size = sum(p.data.nbytes for p in outcome.model.parameters())
    parts = memory[trained_as]
    if "lora_rank" in settings:
        assert parts["weights"] > size and parts["gradients"] < 0.5 * size  # the adapters', which were merged since
    else:
        assert parts["weights"] == parts["gradients"] == size
    if "optimizer" in settings:
        assert size < parts["optimizer state"] < 2 * size
    else:
        assert parts["optimizer state"] == 2 * parts["gradients"]
    assert ("averaged weights" in parts) == ("ema" in settings)


def test_the_probabilities_of_what_follows(text):
    outcome = trained(text, steps=1)
    ids = np.array([1, 2, 3, 4, 5])
    p = gpt_report._expected(outcome.model, ids)
    assert p.shape == (5, outcome.model.config.vocab_size)
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)
    for n in range(1, 6):  # each from what stands before it
        logits = outcome.model(ids[None, :n]).numpy()[0, -1]
        np.testing.assert_allclose(p[n - 1], np.exp(logits) / np.exp(logits).sum(), rtol=1e-4)


def test_the_window_goes_on_by_one(text):
    outcome = trained(text, steps=1)
    raw = Path(text).read_text()
    codes = np.searchsorted(sorted(set(raw)), list(raw))

    class Held:
        held_out = codes[int(0.9 * len(raw)) :]

        class tokenizer:
            decode = staticmethod(lambda ids: "".join(sorted(set(raw))[i] for i in ids))

    short, long = (gpt_report.sample_start(Held, 16, more) for more in (0, 1))
    assert len(short) == 16 and len(long) == 17 and (long[:-1] == short).all()
    assert isinstance(outcome.model, GPT)


def test_what_the_user_sees(text, capsys):
    outcome = gpt.train(Settings(**TINY), Common(text, progress=True))
    said = capsys.readouterr().err
    assert f"{outcome.model.num_parameters():,} parameters: 2 layers of width 16, 2 heads" in said
    assert "a batch of 4 x 16 tokens: " in said and "activations" in said
    assert re.search(r"step 6/6 .*loss \d.*held out \d.*lr .*gradient .*tokens/s.*% of peak", said)
    gpt.train(Settings(**TINY), Common(text, progress=False))
    assert capsys.readouterr().err == ""

"""Train the language model on a text, beside character counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ..creation import as_tensor
from ..data import DataError
from ..machine import peak_flops
from ..models import GPT
from ..models.gpt_summary import opening_lines
from ..nn.modes import evaluation
from ..random import Generator, manual_seed
from ..recording import no_grad
from ..training.batches import RandomWindows
from ..training.display import Display
from ..training.keeper import Keeper
from ..training.loop import Loop
from ..training.loop_state import restore_weights
from ..training.non_finite import NonFiniteLoss
from ..training.observer import Observer, Silent
from ..training.run import RunError, make_model, newest_save
from .base import Common, Outcome, describe
from .gpt_model import (
    add_lora,
    data_of,
    finish,
    make_early,
    make_ema,
    make_optimizer,
    make_schedule,
    precision_of,
    read_text,
    start_from,
)  # fmt: skip
from .gpt_report import add_pictures, count, memory_of, metric, sample_start
from .gpt_settings import Settings

CHANGEABLE = ("steps", "minutes", "save_every")  # when a run goes on


def train(settings: Settings, common: Common) -> Outcome:
    """Fit on the first 90 % of the text; measure on the rest. With common.out the run is saved there as it goes on;
    with common.resume it goes on from there."""
    resume = newest_save(str(common.out)) if common.resume else None
    tokenizer, sha256 = data_of(resume[0]) if resume else (None, "")
    model: Any = None
    if settings.init and not resume:
        model, tokenizer = start_from(settings.init, settings)
    text = read_text(settings, common, tokenizer)
    if resume:
        config, state, name = resume
        if text.sha256 != sha256:
            raise DataError(
                f"{common.data or 'the embedded text'} has changed since {common.out} began to learn it: give the text "
                "of then with --data, or start a new run"
            )
        numbers = sum(a.size for a in state["parts"]["model"].values())
        model = make_model(config, f"{common.out}/saves/{name}", numbers, "its save")
    manual_seed(common.seed)
    if model is None:
        model = GPT(text.tokenizer.vocab_size, **settings.model_settings())
    model.to(common.device)
    model.checkpoint_blocks = settings.checkpoint_blocks
    lora = add_lora(model, settings)
    optimizer = make_optimizer(model, lora, settings)
    ema = make_ema(model, settings)
    prompt = text.tokenizer.encode(settings.prompt) if settings.prompt else sample_start(text, settings.context)

    def loss(x: Any, y: Any) -> Any:
        return model.loss(x, y, label_smoothing=settings.label_smoothing, z_loss=settings.z_loss)

    def measure(step: int) -> dict[str, Any]:
        value = validation_loss(model, text.held_out, settings.eval_windows or None, settings.context)
        if not settings.sample:
            return {"validation_loss": value}
        ids = model.generate(prompt, settings.sample, temperature=0.8, top_k=40, generator=Generator(2))
        return {"validation_loss": value, "sample": text.tokenizer.decode(ids[len(prompt) :])}

    extras = {"tokenizer": text.tokenizer.to_dict(), "text_sha256": text.sha256}
    keeper = Keeper(common.out, describe("gpt", model.config, common, settings, extras))
    loop = Loop(
        model, optimizer, RandomWindows(text.train, settings.batch_size, settings.context, common.seed, common.device),
        loss, steps=settings.steps, minutes=settings.minutes, schedule=make_schedule(settings),
        accumulation=settings.accumulation, clip_norm=settings.clip_norm or None,
        precision=precision_of(settings, common), ema=ema,
        early=make_early(settings), measure=measure, every=settings.every,
        save=keeper.save if common.out or settings.patience else None, save_every=settings.save_every,
        non_finite=settings.non_finite, title="gpt",
        observer=common.observer or _display(model, optimizer, settings, common),
    )  # fmt: skip
    with keeper.locked():
        if resume:
            keeper.go_on(loop, state, name)
        else:
            keeper.refuse_unfinished()
        try:
            history = loop.run()
        except NonFiniteLoss as error:
            kept = keeper.saves.names()[-1:] if keeper.saves else []
            raise NonFiniteLoss(f"{error}. {common.out}/saves/{kept[0]} is kept" if kept else str(error)) from error
    best = keeper.best_state() if settings.patience and not history.interrupted else None
    if best is not None:
        restore_weights(loop, best)
    memory = memory_of(model, optimizer, ema, settings)
    finish(model, lora, ema)
    value = validation_loss(model.eval(), text.held_out, context=settings.context)
    counted = count(text)
    return Outcome(
        "gpt", "Language model", model, history, text.about, [metric(value, text, counted)],
        lambda report: add_pictures(report, model, history, text, prompt, value, counted, memory, settings), extras,
    )  # fmt: skip


def _display(model: GPT, optimizer: Any, settings: Settings, common: Common) -> Observer:
    """What the user sees of the training; nothing with --quiet."""
    if not common.progress:
        return Silent()
    about = opening_lines(model, settings.batch_size, settings.context, optimizer)
    if settings.preset:
        parts = f"{settings.position} positions, {settings.norm} norm, {settings.mlp}, {settings.optimizer}"
        about.insert(0, f"preset {settings.preset}: {parts}; --help lists every setting and preset")
    flops = model.flops_per_token(settings.context) if common.device == "cpu" else None  # the peak is the CPU's
    peak = partial(peak_flops, bf16=precision_of(settings, common) == "bfloat16")
    return Display(about, flops, peak)


def go_on(folder: str, given: Mapping[str, Any], common: Common) -> tuple[Settings, Common]:
    """What `train` needs to go on with a run: its own settings but for those `given`; RunError for another setting."""
    others = sorted(set(given) - set(CHANGEABLE))
    if others:
        flags = ", ".join("--" + name.replace("_", "-") for name in others)
        raise RunError(f"--resume goes on with the run's own settings: leave out {flags}; steps and minutes may change")
    config, _, name = newest_save(folder)
    try:
        settings = replace(Settings.from_saved(config.get("settings")), **given)
        data, seed = config["data"], config["seed"]
        if not isinstance(seed, int) or not isinstance(data, str | None):
            raise ValueError(f"data={data!r} and seed={seed!r}")
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{folder}/saves/{name} holds settings that cannot be used: {error}") from error
    return settings, replace(common, data=common.data or data, seed=seed, out=folder, resume=True)


def learning_rate(step: int, settings: Settings) -> float:
    """AdamW's at a step, in a run that ends with its steps."""
    return settings.lr * make_schedule(settings)(step, settings.steps or step)


@no_grad()
def validation_loss(model: GPT, ids: Any, most: int | None = None, context: int | None = None) -> float:
    """Mean loss in nats a token over ids (T,), cut into windows side by side; over `most` of them, evenly spread."""
    context, device = model.config.context if context is None else context, model.token.weight.device
    windows = (len(ids) - 1) // context
    x = ids[: windows * context].reshape(windows, context)
    y = ids[1 : windows * context + 1].reshape(windows, context)
    if most is not None and most < windows:
        chosen = np.linspace(0, windows - 1, most).astype(np.int64)
        x, y, windows = x[chosen], y[chosen], most
    total = 0.0
    with evaluation(model):
        for i in range(0, windows, 64):
            part = slice(i, i + 64)
            total += model.loss(as_tensor(x[part]).to(device), as_tensor(y[part]).to(device)).item() * len(x[part])
    return total / windows

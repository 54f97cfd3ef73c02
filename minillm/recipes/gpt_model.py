"""The pieces that `minillm train gpt` puts together: text and tokenizer, model, optimizer, schedule."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from .. import nn, optim
from ..data import DataError, load
from ..models import GPT
from ..optim import schedule
from ..text import ByteTokenizer, CharTokenizer, tokenizer_from_dict, train_validation_split
from ..training.run import RunError, load_weights, make_model
from .base import Common
from .gpt_settings import Settings


@dataclass(frozen=True, eq=False)
class Text:
    """A text as ids, the first 90 % to train on."""

    tokenizer: Any
    train: Any  # ids int64 (T,)
    held_out: Any
    sha256: str  # of the text
    about: str  # a line for people
    characters_per_token: float

    @property
    def unit(self) -> str:
        kind = self.tokenizer.to_dict()["type"]
        return {"characters": "character", "bytes": "byte"}.get(kind, "token")


def read_text(settings: Settings, common: Common, tokenizer: Any = None) -> Text:
    """The text of common.data; a tokenizer is made for it where none is given."""
    data = load(common.data, "text")
    if tokenizer is None:
        tokenizer = make_tokenizer(data.inputs, settings)
    ids = tokenizer.encode(data.inputs)
    train, held_out = train_validation_split(ids, 0.9)
    if len(held_out) <= settings.context or len(train) <= settings.context:
        kind = "characters" if len(ids) == len(data.inputs) else "tokens"
        raise DataError(
            f"the text has {len(ids):,} {kind}; a context of {settings.context} needs at least "
            f"{10 * settings.context + 20}. Give a longer text or a smaller --context"
        )
    sha256 = hashlib.sha256(data.inputs.encode("utf-8", "surrogatepass")).hexdigest()
    text = Text(tokenizer, train, held_out, sha256, "", len(data.inputs) / len(ids))
    about = f"{len(train):,} {text.unit}s to train on, {len(held_out):,} held out, {tokenizer.vocab_size} symbols: "
    return Text(**{**vars(text), "about": f"{about}{data.description}; licence: {data.licence}"})


def make_tokenizer(text: str, settings: Settings) -> Any:
    if settings.tokenizer == "bpe":
        from ..text import SubwordTokenizer

        return SubwordTokenizer.train(text, settings.vocab_size)
    return ByteTokenizer() if settings.tokenizer == "bytes" else CharTokenizer.train(text)


# ---------------------------------------------------------------------------------------------------- model


def start_from(folder: str, settings: Settings) -> tuple[GPT, Any]:
    """(model, tokenizer) of a run's folder, or of one in Hugging Face's form; dropout is that of the settings.

    RunError for a folder that holds no language model or no tokenizer, DataError for a context longer than the model's.
    """
    from ..generation.loading import load_writer

    model, tokenizer, _, _ = load_writer(folder)
    if not isinstance(model, GPT):
        raise RunError(f"{folder} holds no language model to start from")
    config = {**vars(model.config), "dropout": settings.dropout, "stochastic_depth": settings.stochastic_depth}
    if settings.context > model.config.context:
        raise DataError(f"--context {settings.context}: the model of {folder} sees {model.config.context} tokens")
    with nn.init.skipped():  # every weight is loaded next
        new = GPT.from_config(config)
    new.load_state_dict(model.state_dict())
    return new, tokenizer


def add_lora(model: GPT, settings: Settings) -> Any:
    """The adapters that are trained instead of the weights; None where those are trained."""
    if not settings.lora_rank:
        return None
    from ..training.lora import LoRA

    return LoRA(model, rank=settings.lora_rank, alpha=2.0 * settings.lora_rank)


def make_ema(model: GPT, settings: Settings) -> Any:
    if not settings.ema:
        return None
    from ..training.ema import EMA

    return EMA(model, settings.ema)


def make_early(settings: Settings) -> Any:
    if not settings.patience:
        return None
    from ..training.early_stopping import EarlyStopping

    return EarlyStopping(settings.patience)


def restored(config: dict[str, Any], state: Any, where: str) -> nn.Module:
    """The model of a save, as the end of its run would leave it: averaged, merged. RunError where it cannot be."""
    try:
        settings = Settings.from_saved(config.get("settings"))
        weights = state["parts"]["model"]
        model: Any = make_model(config, where, sum(a.size for a in weights.values()), where)
        lora, ema = add_lora(model, settings), make_ema(model, settings)
        load_weights(model, weights, where)
        if ema is not None:
            ema.load_state_dict(state["parts"]["ema"])
        finish(model, lora, ema)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise error if isinstance(error, RunError) else RunError(f"{where} is no save of a model: {error}") from error
    return model


def finish(model: GPT, lora: Any, ema: Any) -> None:
    """After the training: the averaged weights become the model's, and adapters a part of its weights."""
    if ema is not None:
        with ema.swapped():
            averaged = model.state_dict()
        model.load_state_dict(averaged)
    if lora is not None:
        lora.merge()
        lora.remove()


# ---------------------------------------------------------------------------------------- optimizer, schedule


def make_optimizer(model: GPT, lora: Any, settings: Settings) -> Any:
    """AdamW, with decay for matrices only: biases and norms have no scale to keep small. Muon: for blocks' matrices."""
    s = settings
    adamw = partial(optim.AdamW, lr=s.lr, betas=(s.beta1, s.beta2))
    if lora is not None:
        return adamw(list(lora.parameters()), weight_decay=s.weight_decay)
    if s.optimizer == "adamw":
        return adamw(optim.decay_groups(model, s.weight_decay))
    matrices, others = optim.muon_groups(model)
    muon = optim.Muon(matrices, lr=s.muon_lr, momentum=s.muon_momentum, weight_decay=s.weight_decay)
    return optim.Optimizers([muon, adamw(others, weight_decay=0.0)])


def precision_of(settings: Settings, common: Common) -> str:
    """As the loop calls it. auto: bfloat16 on a CPU or a GPU that multiplies it."""
    if common.device == "cuda":
        from ..cuda import has_bf16
    else:
        from kernels import has_bf16
    fast = settings.precision == "auto" and common.device in ("cpu", "cuda") and has_bf16()
    return {"bf16": "bfloat16", "auto": "bfloat16" if fast else "float32"}.get(settings.precision, settings.precision)


def make_schedule(settings: Settings) -> Callable[[float, float], float]:
    """(step, total) -> factor of the learning rates: linear warm-up, then as the setting says."""
    s = settings

    def factor(step: float, total: float) -> float:
        if s.schedule == "cosine":
            return schedule.warmup_cosine(step, total, s.warmup, s.final_lr)
        if s.schedule == "linear":
            return schedule.warmup_linear(step, total, s.warmup, s.final_lr)
        stable = 1.0 if s.schedule == "constant" else s.stable
        return schedule.warmup_stable_decay(step, total, s.warmup, stable, s.final_lr)

    return factor


def data_of(saved: dict[str, Any]) -> tuple[Any, str]:
    """(tokenizer, sha256 of the text) of a run's config; RunError where they are not there."""
    try:
        return tokenizer_from_dict(saved["tokenizer"]), str(saved["text_sha256"])
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"the run's config has no tokenizer or no checksum of its text ({error})") from error

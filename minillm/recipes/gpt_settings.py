"""The settings of `minillm train gpt`: what the model is made of, and how it is trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..errors import nearest
from ..models.gpt import NORMS, POSITIONS, GPTConfig
from ..models.presets import PRESETS
from ..models.saved import check_types
from ..nn.feed_forward import KINDS
from ..training.non_finite import Policy
from .base import setting
from .presets import preset

TOKENIZERS = ("characters", "bytes", "bpe")
OPTIMIZERS = ("adamw", "muon")
SCHEDULES = ("cosine", "linear", "stable", "constant")
PRECISIONS = ("float32", "bf16", "auto")

_START, _TEXT, _MODEL, _MORE = "start from", "text", "model", "model, in more detail"
_TRAIN, _STEP, _REGULAR, _WATCH = "training", "optimizer", "regularisation", "measuring and saving"


def _in(group: str, default: Any, help: str, **more: Any) -> Any:
    return setting(default, help, group=group, **more)


@dataclass(frozen=True)
class Settings:
    preset: str = _in(_START, "", f"settings of model and training: {', '.join(PRESETS)}; flags that are given win "
                      "(default: laptop, where no flag says anything of model or optimizer; else the defaults below)",
                      word="NAME")  # fmt: skip
    init: str = _in(_START, "", "start from the weights of a run, or of a folder in Hugging Face's form", word="DIR")
    lora_rank: int = _in(_START, 0, "train matrices of this rank beside the weights (LoRA), merged at the end; 0: "
                         "train the weights", least=0)  # fmt: skip

    tokenizer: str = _in(_TEXT, "characters", "what a token is", choices=TOKENIZERS)
    vocab_size: int = _in(_TEXT, 1024, "bpe: how many tokens")

    layers: int = _in(_MODEL, 4, "transformer blocks")
    heads: int = _in(_MODEL, 4, "attention heads of each block")
    width: int = _in(_MODEL, 128, "size of the residual stream")
    context: int = _in(_MODEL, 64, "tokens a window")
    dropout: float = _in(_MODEL, 0.0, "dropout")

    position: str = _in(_MORE, "learned", "how tokens know their place", choices=POSITIONS)
    norm: str = _in(_MORE, "layer", "LayerNorm or RMSNorm", choices=NORMS)
    mlp: str = _in(_MORE, "gelu", "kind of feed-forward layer", choices=KINDS)
    mlp_width: int | None = _in(_MORE, None, "its width (default: 4 width; swiglu: 8/3 width)")
    kv_heads: int | None = _in(_MORE, None, "heads of keys and values, shared by the others (default: as many)")
    window: int | None = _in(_MORE, None, "tokens that a token sees (default: all before it)")
    qk_norm: bool = _in(_MORE, False, "norm of queries and keys")
    softcap: float | None = _in(_MORE, None, "largest logit: softcap * tanh(logit / softcap) (default: none)")
    bias: bool = _in(_MORE, True, "biases in linear layers and norms")
    tie: bool = _in(_MORE, True, "the token embedding is the output's matrix too")
    zero_init: bool = _in(_MORE, False, "blocks begin as the identity")
    experts: int = _in(_MORE, 0, "mixture of so many feed-forward layers; 0: one, for all", least=0)
    experts_per_token: int = _in(_MORE, 2, "experts that a token meets")
    balance_loss: float = _in(_MORE, 0.01, "weight of the experts' balance loss")

    steps: int | None = _in(_TRAIN, 1500, "training steps; with --minutes alone: as many as there is time for")
    minutes: float | None = _in(_TRAIN, None, "stop in this time, the schedule ending then (default: no limit)")
    batch_size: int = _in(_TRAIN, 12, "windows a batch")
    accumulation: int = _in(_TRAIN, 1, "batches a step")
    precision: str = _in(_TRAIN, "float32", "of products (on a GPU of all activations); auto: bf16 where the "
                         "machine has it", choices=PRECISIONS)  # fmt: skip
    checkpoint_blocks: bool = _in(_TRAIN, False, "compute blocks again for their gradient: slower, less memory")
    non_finite: str = _in(_TRAIN, "stop", "what a loss or gradient that is not finite does: stop the run, or skip the "
                          "step", choices=Policy.KINDS)  # fmt: skip

    optimizer: str = _in(_STEP, "adamw", "AdamW; or Muon for the blocks' matrices and AdamW for the rest",
                         choices=OPTIMIZERS)  # fmt: skip
    lr: float = _in(_STEP, 1e-3, "AdamW's highest learning rate")
    muon_lr: float = _in(_STEP, 0.02, "Muon's")
    muon_momentum: float = _in(_STEP, 0.95, "Muon's memory of gradients")
    schedule: str = _in(_STEP, "cosine", "after the warm-up: cosine or line down to final-lr; stable: constant first",
                        choices=SCHEDULES)  # fmt: skip
    warmup: int = _in(_STEP, 100, "steps of linear warm-up, at most a fifth of all", least=0)
    stable: float = _in(_STEP, 0.4, "stable: part of the steps with a constant rate")
    final_lr: float = _in(_STEP, 0.1, "learning rate at the end, as a part of the highest")
    weight_decay: float = _in(_STEP, 0.1, "of matrices")
    beta1: float = _in(_STEP, 0.9, "AdamW's memory of gradients")
    beta2: float = _in(_STEP, 0.99, "AdamW's memory of their squares")
    clip_norm: float = _in(_STEP, 1.0, "largest norm of the gradient; 0: any")

    ema: float = _in(_REGULAR, 0.0, "decay of averaged weights, which are measured and kept, for instance 0.999; 0: no "
                     "averaging")  # fmt: skip
    label_smoothing: float = _in(_REGULAR, 0.0, "part of the probability that the target gives to all tokens")
    z_loss: float = _in(_REGULAR, 0.0, "weight of log^2 of the softmax's sum, for instance 1e-4")
    stochastic_depth: float = _in(_REGULAR, 0.0, "how often the last block is left out; others less")
    patience: int = _in(_REGULAR, 0, "stop after so many measurements without a better one, and keep the best weights; "
                        "0: do not", least=0)  # fmt: skip

    every: int = _in(_WATCH, 250, "steps between measurements")
    eval_windows: int = _in(_WATCH, 200, "windows of held-out text for those; 0: all of it", least=0)
    prompt: str = _in(_WATCH, "", "text that samples continue (default: some held-out words)")
    sample: int = _in(_WATCH, 200, "tokens of the sample at each measurement", least=0)
    save_every: int | None = _in(_WATCH, None, "steps between saves (default: at each measurement)")

    @classmethod
    def of(cls, values: Mapping[str, Any], given: Iterable[str] | None = None) -> Settings:
        """Those values, with the preset's instead where they were not `given` by name (None: all were).

        Where neither a preset nor anything of model or optimizer was given, the preset is "laptop".
        """
        values, given = dict(values), set(values if given is None else given)
        if not given & {*MODEL_FIELDS, *STEP_FIELDS, "preset", "init", "lora_rank"}:
            values["preset"] = "laptop"
        if values.get("init"):
            free = {"context", "dropout", "stochastic_depth"}
            taken = sorted(given & {*MODEL_FIELDS, "tokenizer", "vocab_size"} - free)
            if taken:
                raise ValueError(f"the model and its tokens come from init: leave out {', '.join(taken)}")
        if values.get("preset"):
            chosen = preset(values["preset"])
            values.update({k: v for k, v in chosen.items() if k not in given})
            given |= set(chosen) - {"steps"}
        if values.get("minutes") is not None and "steps" not in given:
            values["steps"] = None
        settings = cls(**values)
        settings.check()
        return settings

    @classmethod
    def from_saved(cls, saved: Any) -> Settings:
        """From a run's config; ValueError where it is not one of these settings, or not of its kind."""
        if not isinstance(saved, dict):
            raise ValueError(f"expected a dictionary of settings, got {type(saved).__name__}")
        known = {f.name: f for f in fields(cls)}
        for name in saved:
            if name not in known:
                raise ValueError(f"there is no setting {name!r}.{nearest(name, known)}")
        check_types(cls, saved)
        for name, f in known.items():
            choices = f.metadata.get("choices")
            if choices and saved.get(name, f.default) not in choices:
                raise ValueError(f"{name}={saved[name]!r} is none of {', '.join(choices)}")
        settings = cls(**saved)
        settings.check()
        return settings

    def check(self) -> None:
        for name in ("stable", "ema", "label_smoothing", "stochastic_depth", "beta1", "beta2", "muon_momentum"):
            if not 0 <= getattr(self, name) <= (0.999999 if name in ("ema", "beta1", "beta2", "muon_momentum") else 1):
                raise ValueError(f"{name.replace('_', '-')} must be from 0 to below 1, got {getattr(self, name)}")
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError(f"minutes must be above 0, got {self.minutes}")
        if self.lora_rank and self.optimizer != "adamw":
            raise ValueError("lora-rank goes with the optimizer adamw: Muon is for whole matrices")

    def model_settings(self) -> dict[str, Any]:
        """Those of GPTConfig."""
        names = [f.name for f in fields(GPTConfig) if hasattr(self, f.name) and f.name != "vocab_size"]
        return {name: getattr(self, name) for name in names}


MODEL_FIELDS = tuple(f.name for f in fields(GPTConfig) if f.name in {s.name for s in fields(Settings)} - {"vocab_size"})
STEP_FIELDS = tuple(f.name for f in fields(Settings) if f.metadata["group"] == _STEP)

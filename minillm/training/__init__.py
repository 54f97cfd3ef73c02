"""Training: the loop, its history, and the directory that keeps a run."""

from .accumulation import accumulate
from .activation_checkpointing import checkpoint_sequential, peak_activation_memory
from .batches import RandomWindows
from .early_stopping import EarlyStopping
from .ema import EMA
from .fit import LOSSES, NonFiniteLoss, evaluate, fit, fit_batches, train_step
from .grad_scaler import GradScaler
from .history import History
from .loop import Loop
from .lora import LoRA
from .lora_files import load_lora, save_lora
from .lr_finder import find_lr
from .mixed_precision import mixed_precision
from .noise_scale import NoiseScale
from .run import Run, RunError, load_model, read_config, to_json
from .saves import Saves

__all__ = [
    "EMA", "LOSSES", "EarlyStopping", "GradScaler", "History", "LoRA", "Loop", "NoiseScale", "NonFiniteLoss",
    "RandomWindows", "Run", "RunError", "Saves", "accumulate", "checkpoint_sequential", "evaluate", "find_lr",
    "fit", "fit_batches", "load_lora", "load_model", "mixed_precision", "peak_activation_memory", "read_config",
    "save_lora", "to_json", "train_step",
]  # fmt: skip

"""Training: the loop, its history, and the directory that keeps a run."""

from .activation_checkpointing import checkpoint_sequential, peak_activation_memory
from .fit import LOSSES, NonFiniteLoss, evaluate, fit, fit_batches, train_step
from .grad_scaler import GradScaler
from .history import History
from .lora import LoRA
from .lora_files import load_lora, save_lora
from .mixed_precision import mixed_precision
from .run import Run, RunError, load_model, read_config, to_json

__all__ = [
    "LOSSES", "GradScaler", "History", "LoRA", "NonFiniteLoss", "Run", "RunError", "checkpoint_sequential", "evaluate",
    "fit", "fit_batches", "load_lora", "load_model", "mixed_precision", "peak_activation_memory", "read_config",
    "save_lora", "to_json", "train_step",
]  # fmt: skip

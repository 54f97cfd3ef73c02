"""Training: the loop, its history, and the directory that keeps a run."""

from .fit import LOSSES, NonFiniteLoss, evaluate, fit, fit_batches, train_step
from .history import History
from .run import Run, RunError, load_model, read_config, to_json

__all__ = [
    "LOSSES", "History", "NonFiniteLoss", "Run", "RunError", "evaluate", "fit", "fit_batches", "load_model",
    "read_config", "to_json", "train_step",
]  # fmt: skip

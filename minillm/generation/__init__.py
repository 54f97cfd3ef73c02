"""Writing with a language model: sampling, a batch with a KV cache, text as it comes, beam search."""

from .beam import Hypothesis, beam_search
from .generate import generate, generate_ids
from .reader import Reader
from .sampling import Sampling
from .stream import TextStream
from .text import generate_text

__all__ = [
    "Hypothesis", "Reader", "Sampling", "TextStream", "beam_search", "generate", "generate_ids", "generate_text",
]  # fmt: skip

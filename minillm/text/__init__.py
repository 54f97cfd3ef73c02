"""Text as numbers: tokenizers, and windows of a text to train a language model on."""

from .bpe import SubwordTokenizer
from .characters import ByteTokenizer, CharTokenizer, tokenizer_from_dict
from .packing import Packed, pack
from .windows import sample_windows, train_validation_split

__all__ = [
    "ByteTokenizer", "CharTokenizer", "Packed", "SubwordTokenizer", "pack", "sample_windows",
    "tokenizer_from_dict", "train_validation_split",
]  # fmt: skip

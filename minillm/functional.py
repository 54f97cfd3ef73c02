"""What users call: every op under PyTorch's name, on Tensors and on plain arrays.

>>> from minillm import functional as F, tensor
>>> F.softmax(tensor([0.0, 0.0]), dim=-1)
tensor([0.5, 0.5])
"""

from typing import TYPE_CHECKING

from .ops import *

if not TYPE_CHECKING:
    from .ops import __all__ as __all__

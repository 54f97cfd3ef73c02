"""What users call: every op under PyTorch's name, on Tensors and on plain arrays.

>>> from minillm import functional as F, tensor
>>> F.softmax(tensor([0.0, 0.0]), dim=-1)
tensor([0.5, 0.5])
"""

from .ops import *

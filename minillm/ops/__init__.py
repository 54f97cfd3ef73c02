"""The ops, a family a file: forward and gradient rule side by side."""

from typing import TYPE_CHECKING

from .activation import *
from .attention import *
from .dropout import *
from .elementwise import *
from .embedding import *
from .gaussian import *
from .index import *
from .linalg import *
from .linear_cross_entropy import *
from .loss import *
from .move import *
from .norm import *
from .reduce import *
from .rotary import *
from .self_attention import *
from .shape import *
from .softmax import *

if not TYPE_CHECKING:  # `from minillm.ops import *` takes the functions, not the modules that hold them
    __all__ = [name for name, value in globals().items() if callable(value) and not name.startswith("_")]

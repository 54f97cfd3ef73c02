"""The ops, a family a file: forward and gradient rule side by side."""

from .activation import *
from .attention import *
from .dropout import *
from .elementwise import *
from .embedding import *
from .gaussian import *
from .index import *
from .linalg import *
from .loss import *
from .move import *
from .norm import *
from .reduce import *
from .shape import *
from .softmax import *

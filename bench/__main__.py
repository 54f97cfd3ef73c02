"""`python -m bench`; everything else loads after the environment is set."""

import sys

from .command import main

sys.exit(main(sys.argv[1:]))

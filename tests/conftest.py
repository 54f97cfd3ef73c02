"""Settings that have to stand before NumPy is imported."""

import os
import signal

# The products in these tests are small. OpenBLAS's threads would only spin against Numba's (and against other
# programs).
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would every process they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

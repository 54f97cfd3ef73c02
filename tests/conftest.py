"""Settings that have to stand before NumPy is imported."""

import os

# The products in these tests are small. OpenBLAS's threads would only spin against Numba's (and against other
# programs).
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

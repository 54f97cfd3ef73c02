"""Data sets: three inside the package, and readers for your own files. NumPy arrays out, `DataError` for bad files.

    load, list_datasets         one entry to all of it
    load_digits                 1,797 handwritten digits of 8 x 8 pixels
    python_docs_text, python_source_text, read_text
    load_mnist, load_table      idx files; CSV and TSV
    batches                     minibatches
"""

from .digits import load_digits
from .errors import DataError
from .load import Dataset, list_datasets, load
from .loader import batches
from .mnist import load_mnist
from .table import load_table
from .text import python_docs_text, python_source_text, read_text

__all__ = [
    "DataError",
    "Dataset",
    "batches",
    "list_datasets",
    "load",
    "load_digits",
    "load_mnist",
    "load_table",
    "python_docs_text",
    "python_source_text",
    "read_text",
]

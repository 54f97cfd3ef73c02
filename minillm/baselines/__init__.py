"""What a model must beat, and what none can: trivial baselines and entropy floors, in plain NumPy.

    MeanImage              autoencoders and VAEs: answer with the mean image whatever is asked
    PCA                    autoencoders: the best linear one
    LogisticRegression     classifiers: the best linear one
    NGram                  language models: counts of short histories
    bernoulli_entropy      the BCE of a perfect reconstruction, which is not zero for grey pixels
    unigram_entropy        the cross-entropy of a model that knows the frequencies of the symbols alone
"""

from .entropy import bernoulli_entropy, unigram_entropy
from .logistic import LogisticRegression
from .mean import MeanImage
from .ngram import NGram
from .pca import PCA

__all__ = ["PCA", "LogisticRegression", "MeanImage", "NGram", "bernoulli_entropy", "unigram_entropy"]

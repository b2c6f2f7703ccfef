"""The handwritten digits and the part of them that training never sees.

Why: the training script, the sample requests and the end-to-end tests must all speak of the same held-out rows.
Shapes: pixels float32 [rows, 64], an 8 by 8 image row by row; labels int64 [rows].
Units: a pixel counts inked dots, 0 to 16.
Source: "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository (E. Alpaydin, C. Kaynak, 1998),
the 1797 images that scikit-learn ships; nothing is downloaded.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

HELD_OUT_SHARE = 0.3
SPLIT_SEED = 0


class Digits(NamedTuple):
    pixels: NDArray[np.float32]
    labels: NDArray[np.int64]


def split() -> tuple[Digits, Digits]:
    """The rows to train on, and the 540 held-out rows; every digit has the same share in both."""
    digits = load_digits()
    train_pixels, held_pixels, train_labels, held_labels = train_test_split(
        digits.data.astype(np.float32),
        digits.target.astype(np.int64),
        test_size=HELD_OUT_SHARE,
        random_state=SPLIT_SEED,
        stratify=digits.target,
    )
    return Digits(train_pixels, train_labels), Digits(held_pixels, held_labels)


def held_out() -> Digits:
    return split()[1]

"""Diabetes: 442 patients, ten measurements each, and how far the disease went in the year after.

B. Efron et al., "Least Angle Regression", Annals of Statistics 32 (2004); carried by scikit-learn's wheel.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vectile.extras import require

NAMES = ("age", "sex", "body mass index", "blood pressure", *(f"serum {i}" for i in range(1, 7)))


class Patients(NamedTuple):
    """`measured` float32 (n, 10), columns as in `NAMES`; `progress` float32 (n, 1)."""

    measured: NDArray[np.float32]
    progress: NDArray[np.float32]


def diabetes(held_out: float = 0.2) -> tuple[Patients, Patients]:
    """(training, held-out) patients, the same split in every run.

    Both columns and target have mean 0 and variance 1 over the training patients. ValueError for a fraction
    outside (0, 1); MissingExtra without scikit-learn.
    """
    if not 0.0 < held_out < 1.0:
        raise ValueError(f"diabetes: held_out: expected a fraction in (0, 1), got {held_out}")
    source = require("sklearn.datasets", "the diabetes data", "recipes")
    measured, progress = source.load_diabetes(return_X_y=True)
    table = np.column_stack([measured, progress])
    order = np.random.Generator(np.random.Philox(len(table))).permutation(len(table))
    cut = round(held_out * len(table))
    held, rest = table[order[:cut]], table[order[cut:]]
    mean, deviation = rest.mean(0), rest.std(0)

    def patients(rows: NDArray[np.float64]) -> Patients:
        scaled = ((rows - mean) / deviation).astype(np.float32)
        return Patients(scaled[:, :-1], scaled[:, -1:])

    return patients(rest), patients(held)

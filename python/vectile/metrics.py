"""How far apart two sets of things are."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def frechet_distance(a: ArrayLike, b: ArrayLike) -> float:
    """|m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½) of two sets of features (n, d), (m, d), in float64.

    The Fréchet (2-Wasserstein) distance, squared, of normal distributions with the sets' means m and
    covariances C (Dowson & Landau 1982; Heusel et al., arXiv 1706.08500, eq. 6). Small sets make it larger:
    compare figures of equal n and m. ValueError unless both are matrices of d columns and at least 2 rows.
    """
    first, second = (np.asarray(x, np.float64) for x in (a, b))
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(
            f"frechet_distance: shapes: expected (n, d) and (m, d), got {first.shape} and "
            f"{second.shape}"
        )
    if min(len(first), len(second)) < 2:
        raise ValueError(
            f"frechet_distance: rows: expected >= 2 in each, got {len(first)} and {len(second)}"
        )
    mean = first.mean(0) - second.mean(0)
    c1, c2 = (np.cov(x, rowvar=False).reshape(x.shape[1], -1) for x in (first, second))
    # C1 C2 has the eigenvalues of the symmetric C1^½ C2 C1^½, which are real and not negative
    root = _symmetric_root(c1)
    product = np.linalg.eigvalsh(root @ c2 @ root)
    trace = np.trace(c1) + np.trace(c2) - 2 * np.sqrt(np.maximum(product, 0)).sum()
    return float(max(0.0, mean @ mean + trace))


def _symmetric_root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(matrix)
    out: NDArray[np.float64] = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    return out

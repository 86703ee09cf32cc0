"""The Fréchet distance against its formula written out with SciPy's matrix square root."""

from __future__ import annotations

import numpy as np
import pytest

from vectile.metrics import frechet_distance

linalg = pytest.importorskip("scipy.linalg", reason="the formula needs a matrix square root")


def formula(a, b):
    c1, c2 = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    mean = a.mean(0) - b.mean(0)
    return mean @ mean + np.trace(c1 + c2 - 2 * np.real(linalg.sqrtm(c1 @ c2)))


@pytest.mark.parametrize("shape", [(50, 40, 1), (50, 60, 3), (400, 300, 17)])
def test_it_is_the_formula(shape):
    n, m, d = shape
    rng = np.random.default_rng(d)
    a = rng.standard_normal((n, d)) @ rng.standard_normal((d, d))
    b = rng.standard_normal((m, d)) @ rng.standard_normal((d, d)) + rng.standard_normal(d)
    expected = formula(a, b)
    assert abs(frechet_distance(a, b) - expected) < 1e-9 * expected
    assert abs(frechet_distance(b, a) - expected) < 1e-9 * expected


def test_known_normal_distributions():
    """Independent coordinates: |m1 - m2|² + the squared differences of the deviations."""
    corners = np.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    spread = np.sqrt(4 / 3)  # the corners' sample deviation
    distance = frechet_distance(corners * [1, 2] + [5, 0], corners * [3, 1] - [0, 2])
    assert abs(distance - (25 + 4 + spread**2 * (4 + 1))) < 1e-12
    assert frechet_distance(corners, corners) < 1e-14


def test_fewer_rows_than_features_stay_finite():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 5, 20))
    assert np.isfinite(frechet_distance(a, b)) and frechet_distance(a, a) < 1e-9


@pytest.mark.parametrize("shapes", [((4, 3), (4, 2)), ((4,), (4,)), ((1, 3), (4, 3))])
def test_bad_shapes(shapes):
    with pytest.raises(ValueError, match="frechet_distance"):
        frechet_distance(*(np.zeros(shape) for shape in shapes))

"""What the tests of the tape share."""

from __future__ import annotations

import numpy as np

import vectile as vt


def leaf(*shape, dtype=np.float32):
    """A leaf that requires grad, filled with 1/8, 2/8, 3/8, ..."""
    values = np.arange(1, 1 + int(np.prod(shape)), dtype=dtype).reshape(shape)
    return vt.tensor(values / 8, requires_grad=True)

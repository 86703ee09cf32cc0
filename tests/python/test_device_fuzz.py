"""No call with arrays on a device may crash the process: it returns or raises an ordinary error.

Under the sanitizers this also finds reads and writes outside the arrays, by the emulation.
"""

import numpy as np
import pytest
from gpu_array import GpuArray
from hypothesis import HealthCheck, given, settings
from on_device import EMULATED, cuda, needs_emulation
from test_device import gpu  # noqa: F401  (a fixture)
from test_fuzz import FITTING, OPS, ORDINARY, arguments, lacking, strayed

from vectile import ops

pytestmark = [
    needs_emulation,
    pytest.mark.usefixtures("gpu"),
    pytest.mark.filterwarnings("ignore"),
]
REFUSED = (*ORDINARY, BufferError)  # the last by NumPy, for what DLPack does not know
THERE = [name for name in OPS if not EMULATED or hasattr(cuda, name)]


def around(x):
    """`x` with the arrays of a device in place of NumPy's."""
    if isinstance(x, (list, tuple)):
        return type(x)(map(around, x))
    if isinstance(x, dict):
        return {name: around(value) for name, value in x.items()}
    return GpuArray(x) if isinstance(x, np.ndarray) else x


def fuzz(op, calls, examples):
    """How many of the calls return."""
    completed = 0

    @settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(calls)
    def run(call):
        nonlocal completed
        positional, keyword = around(call)
        try:
            op(*positional, **keyword)
            completed += 1
        except REFUSED as error:
            assert str(error)

    run()
    return completed


@pytest.mark.parametrize("name", THERE)
def test_arbitrary_arguments(name):
    op = getattr(ops, name)
    fuzz(op, arguments(op), 40)


@pytest.mark.parametrize("name", FITTING)
def test_arguments_that_almost_fit(name):
    assert fuzz(getattr(ops, name), strayed(name), 40) >= 1


@pytest.mark.parametrize("name", FITTING)
def test_arguments_that_are_none(name):
    for call in lacking(name):
        positional, keyword = around(call)
        try:
            getattr(ops, name)(*positional, **keyword)
        except REFUSED as error:
            assert str(error)

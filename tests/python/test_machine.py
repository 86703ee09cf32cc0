"""The ceilings are numbers on every tier; how large they are is nothing a test may judge."""

import math

import pytest

import vectile
from vectile import _core, machine


def test_ceilings_on_every_tier(isa):
    c = machine.ceilings((4096, 1 << 20))
    assert (c.isa, c.threads) == (isa, vectile.get_num_threads())
    for rate in (
        c.fma_gflops,
        c.int8_gops,
        *c.read_gbs.values(),
        *c.copy_gbs.values(),
        *c.stream_gbs.values(),
    ):
        assert math.isfinite(rate) and rate > 0
    for rates in (c.read_gbs, c.copy_gbs, c.stream_gbs):
        assert list(rates) == [4096, 1 << 20]


def test_a_working_set_must_be_measurable():
    with pytest.raises(ValueError, match="read_rate: n_bytes value: expected at least 4096, got 1"):
        machine.ceilings((1,))
    with pytest.raises((MemoryError, OverflowError)):
        machine.ceilings((1 << 62,))
    with pytest.raises(ValueError, match="copy_rate: n_bytes value: expected at least 4096, got 1"):
        _core.copy_rate(1, True)

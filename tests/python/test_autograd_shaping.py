"""Views, indexing, splitting."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import leaf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vectile.autograd import functional as F


def test_views_share_memory_and_copies_do_not():
    x = leaf(2, 3, 4)
    for v in (x[1], x.T, x.reshape(6, 4), x.swapaxes(0, 1), x.expand_dims(0), F.flip(x, 0), x.mT):
        assert np.shares_memory(v.numpy(), x.numpy())
    for c in (x[[0, 1]], x.copy(), x.take([0], 1), F.pad(x, 1)):
        assert not np.shares_memory(c.numpy(), x.numpy())


def test_split_is_numpys_and_missing_pieces_are_zero():
    x = leaf(2, 6)
    for sections in (3, [1, 4], [2], 1):
        for ours, theirs in zip(
            x.split(sections, 1), np.split(x.numpy(), sections, 1), strict=True
        ):
            np.testing.assert_array_equal(ours.numpy(), theirs)
    q, _, v = x.split(3, -1)
    (q * v).sum().backward()
    assert x.grad.numpy()[:, 2:4].tolist() == [[0, 0], [0, 0]]
    with pytest.raises(ValueError):
        x.split(4, 1)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 0, 3, 2)])
def test_slices_and_whole_add_up_in_any_order(order):
    x = leaf(3, 4)
    for y in (x * 1, x):  # at a node and at a leaf
        x.grad = None
        terms = [
            lambda y=y: y[0].sum(),
            lambda y=y: (y * 2).sum(),
            lambda y=y: (y[:, 1:] * 3).sum(),
            lambda y=y: y[np.array([0, 0])].sum(),
        ]
        total = terms[order[0]]()
        for i in order[1:]:
            total = total + terms[i]()
        total.backward()
        expected = np.full((3, 4), 2.0)
        expected[0] += 3
        expected[:, 1:] += 3
        np.testing.assert_array_equal(x.grad.numpy(), expected)


def test_transpose_takes_axes_or_a_sequence():
    x = leaf(2, 3, 4)
    assert x.transpose(2, 0, 1).shape == x.transpose((2, 0, 1)).shape == x.permute(-1, 0, 1).shape
    assert x.transpose().shape == x.T.shape == (4, 3, 2)
    assert x.reshape(4, -1).shape == x.reshape((4, 6)).shape == (4, 6) and x.flatten().shape == (
        24,
    )


@given(
    hnp.array_shapes(min_dims=1, max_dims=4, max_side=4).flatmap(
        lambda s: st.tuples(
            st.just(s), hnp.basic_indices(s, allow_newaxis=True, allow_ellipsis=True)
        )
    )
)
@settings(max_examples=100, deadline=None)
def test_basic_indexing_is_numpys(case):
    shape, index = case
    x = leaf(*shape)
    y = x[index]
    np.testing.assert_array_equal(y.numpy(), x.numpy()[index])
    y.sum().backward()
    expected = np.zeros(shape, np.float32)
    expected[index] = 1
    np.testing.assert_array_equal(x.grad.numpy(), expected)

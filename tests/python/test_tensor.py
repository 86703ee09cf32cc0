"""Tensor as a user meets it: construction, protocols, operators, dtypes, copies."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from graphs import leaf

import vectile as vt
from vectile.autograd import functional as F


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (1.5, np.float32),
        ([1.0, 2.0], np.float32),
        ([[1.0], [2]], np.float32),
        ([1, 2], np.int64),
        (True, np.bool_),
        (np.float64(1), np.float64),
        ([np.float64(1)], np.float64),
        (np.zeros(2), np.float64),
        (np.zeros(2, np.float32), np.float32),
        (np.zeros(2, np.uint8), np.uint8),
        ([], np.float32),
        ([[]], np.float32),
    ],
)
def test_tensor_keeps_array_dtypes_and_makes_python_floats_float32(data, dtype):
    assert vt.tensor(data).dtype == dtype
    assert vt.tensor(data, dtype="float64").dtype == np.float64


def test_tensor_copies_and_the_class_shares():
    a = np.zeros(3)
    assert not np.shares_memory(vt.tensor(a).numpy(), a)
    assert vt.Tensor(a).numpy() is a


def test_describes_itself():
    x = vt.tensor([[1.0, 2.0]], requires_grad=True)
    assert (x.shape, x.ndim, x.size, x.nbytes, len(x)) == ((1, 2), 2, 2, 8, 1)
    assert repr(x) == "tensor([[1., 2.]], requires_grad=True)"
    assert repr(x * 2) == "tensor([[2., 4.]], op=multiply)"
    assert repr(vt.tensor(np.ones(1))) == "tensor([1.], dtype=float64)"
    assert x.is_leaf and not (x * 2).is_leaf
    assert f"{vt.tensor(0.25):.3f}" == "0.250"
    assert x.tolist() == [[1.0, 2.0]]


def test_array_protocols():
    x = leaf(2, 3)
    assert np.asarray(x) is x.numpy()
    assert not np.shares_memory(np.array(x), x.numpy())
    assert np.asarray(x, np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="copy"):
        x.__array__(np.float64, copy=False)
    assert np.shares_memory(np.from_dlpack(x.detach()), x.numpy())
    assert x.__dlpack_device__() == (1, 0)
    with pytest.raises(BufferError, match=r"detach\(\)"):
        x.__dlpack__()


def test_scalar_conversions():
    x = vt.tensor(2.5, requires_grad=True)
    assert (float(x), int(x), bool(x), x.item()) == (2.5, 2, True, 2.5)
    assert [10, 20, 30][vt.tensor(1)] == 20
    with pytest.raises(ValueError):
        leaf(2).item()
    with pytest.raises(ValueError):
        bool(leaf(2))
    with pytest.raises(TypeError):
        len(x)
    with pytest.raises(TypeError):
        iter(x)


def test_iteration_and_membership():
    x = leaf(3, 2)
    rows = list(x)
    assert len(rows) == 3 and all(r.shape == (2,) for r in rows)
    (rows[0] * rows[2]).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [x.numpy()[2], [0, 0], x.numpy()[0]])
    assert 0.25 in x and 9.0 not in x


def test_ndarray_on_the_left():
    x = leaf(2, 3)
    a = np.ones((2, 3), np.float32)
    for result in (a + x, a - x, a * x, a / x, a**x, np.ones((4, 2), np.float32) @ x):
        assert type(result) is vt.Tensor and result.requires_grad and result.dtype == np.float32
    assert type(np.float64(2) * x) is vt.Tensor and (np.float64(2) * x).dtype == np.float32


def test_comparisons_have_no_history_and_hash_is_identity():
    x, y = leaf(3), leaf(3)
    for result in (x == y, x != 1, x < y, x <= 0.25, x > y, x >= 0.2):
        assert result.dtype == np.bool_ and not result.requires_grad
    assert len({x, y, x}) == 2
    assert (~((x > 0.2) & (x < 0.3) | (x == 3.0))).tolist() == [True, False, True]


def test_scalars_do_not_upcast():
    x = leaf(2)
    one = np.float64(1)
    for r in (x + 1, 2.0 * x, x / one, x - np.int64(1), -x, x + True, one - x, x @ x * one):
        assert r.dtype == np.float32
    for r in (x**one, x ** np.int64(3), one**x, x**2, x**0.5, 2**x, x ** np.float32(1.5)):
        assert r.dtype == np.float32
    for r in (F.clip(x, one, None), F.where(x > 0, x, one), F.maximum(x, one), F.pad(x, 1, one)):
        assert r.dtype == np.float32


def test_integers_join_a_float_operand():
    x = leaf(3)
    mask = np.array([True, False, True])
    y = x * mask + np.arange(3) + vt.tensor([1, 2, 3]) + [0.5, 0.5, 0.5]
    y = F.where(mask, y ** np.array([1, 2, 1]), np.arange(3))
    y = F.concatenate([y, np.arange(2), F.stack([y[0], 3])])
    assert y.dtype == np.float32
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [2, 0, 1])
    z = vt.tensor([1, 2, 3])
    z[0] = x[0] * 40
    assert z.tolist() == [5, 2, 3] and not z.requires_grad


def test_integer_arithmetic_is_numpys():
    x = vt.tensor([1, 2, 3])
    assert (
        (x + 1).dtype == np.int64 and (x / 2).dtype == np.float64 and (-x).tolist() == [-1, -2, -3]
    )
    assert x.sum().item() == 6 and x.max().item() == 3


def test_two_float_dtypes_are_an_error():
    with pytest.raises(
        TypeError, match="add: operand dtypes: expected the same, got float32 and float64"
    ):
        leaf(2) + np.ones(2)
    for op in (F.power, F.maximum, lambda a, b: F.where(np.ones(2, bool), a, b)):
        with pytest.raises(TypeError, match="float32 and float64"):
            op(leaf(2), np.ones(2))
    for op in (F.concatenate, F.stack):
        with pytest.raises(TypeError, match="float32 and float64"):
            op([leaf(2), np.ones(2)])
    with pytest.raises(TypeError, match="float64"):
        leaf(2, 2) @ np.ones((2, 2))


def test_incompatible_shapes_are_an_error():
    with pytest.raises(ValueError):
        leaf(2) + leaf(3)
    with pytest.raises(ValueError):
        leaf(2, 3) @ leaf(2, 3)


def test_only_floats_can_require_grad():
    for make in (
        lambda: vt.tensor([1, 2], requires_grad=True),
        lambda: vt.tensor(1).requires_grad_(),
    ):
        with pytest.raises(
            TypeError,
            match="requires_grad: expected float16, bfloat16, float32 or float64, got int64",
        ):
            make()
    assert not (leaf(2).astype("int64")).requires_grad
    with pytest.raises(TypeError, match="data"):
        leaf(2).data = [1, 2]


def test_copies():
    x = leaf(2)
    x.grad = vt.tensor([1.0, 1.0])
    y = copy.deepcopy(x)
    assert y.requires_grad and y.grad.tolist() == [1.0, 1.0]
    assert not np.shares_memory(x.numpy(), y.numpy())
    z = pickle.loads(pickle.dumps(x))
    assert z.requires_grad and z.tolist() == x.tolist() and z.grad is None
    with pytest.raises(RuntimeError, match="leaf"):
        copy.deepcopy(x * 2)
    with pytest.raises(RuntimeError, match="leaf"):
        pickle.dumps(x * 2)
    w = copy.copy(x)
    assert w.requires_grad and not w.is_leaf


def test_a_subclass_with_attributes_copies_whole():
    class Parameter(vt.Tensor):
        pass

    p = Parameter(np.ones(2, np.float32), requires_grad=True)
    p.name = "weight"
    q = copy.deepcopy(p)
    assert type(q) is Parameter and q.name == "weight" and q.requires_grad
    (p * 3).sum().backward()
    assert p.grad.tolist() == [3.0, 3.0] and type(p * 3) is vt.Tensor

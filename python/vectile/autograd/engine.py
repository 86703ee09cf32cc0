"""The backward walk: newest node first, each visited once, without recursion."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Any

import numpy as np

from vectile.autograd import arrays
from vectile.autograd.tape import Node, mode
from vectile.autograd.tensor import Array, Tensor, TensorLike, as_tensor, wrap
from vectile.device import is_array


def backward(
    outputs: Sequence[Tensor],
    grad_outputs: Sequence[TensorLike | None] | None,
    retain_graph: bool,
    create_graph: bool,
) -> None:
    """Accumulate gradients into the leaves; see `Tensor.backward`."""
    seeds = _seeds(outputs, grad_outputs, "backward", create_graph)
    _walk(outputs, seeds, retain_graph or create_graph, create_graph, None)


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: TensorLike | Sequence[TensorLike | None] | None = None,
    *,
    create_graph: bool = False,
    retain_graph: bool | None = None,
    allow_unused: bool = False,
) -> tuple[Tensor, ...]:
    """The gradients of the sum of `outputs`, weighted by `grad_outputs`, with respect to `inputs`.

    Returns one Tensor per input and leaves every ``.grad`` alone; only what lies between the inputs and the
    outputs is computed. With `create_graph` the results can be differentiated again. The graph is freed
    unless `retain_graph` (default: `create_graph`).

    Raises RuntimeError for an input that does not require grad or (unless `allow_unused`, which gives None)
    that no output depends on, and as `Tensor.backward`.
    """
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    if grad_outputs is not None and not isinstance(grad_outputs, (list, tuple)):
        grad_outputs = [grad_outputs]
    for i, t in enumerate(inputs):
        if not t.requires_grad:
            raise RuntimeError(f"grad: inputs[{i}] requires_grad: expected True, got False")
    seeds = _seeds(outputs, grad_outputs, "grad", create_graph)
    retain = create_graph if retain_graph is None else retain_graph
    targets: dict[Any, Any] = {t._node or t: None for t in inputs}
    _walk(outputs, seeds, retain, create_graph, targets)
    found = [targets[t._node or t] for t in inputs]
    for i, g in enumerate(found):
        if g is None and not allow_unused:
            raise RuntimeError(
                f"grad: inputs[{i}] was not used to compute the outputs; allow_unused=True gives None"
            )
    results: list[Any] = [g if g is None or isinstance(g, Tensor) else wrap(g) for g in found]
    return tuple(results)


def _seeds(
    outputs: Sequence[Tensor],
    grads: Sequence[TensorLike | None] | None,
    op: str,
    create_graph: bool,
) -> list[Any]:
    """The gradients to start from, checked: arrays, or Tensors if the walk is to be recorded."""
    if grads is None:
        grads = [None] * len(outputs)
    if len(grads) != len(outputs):
        raise ValueError(f"{op}: grad_outputs length: expected {len(outputs)}, got {len(grads)}")
    seeds: list[Any] = []
    for t, g in zip(outputs, grads, strict=True):
        if not t.requires_grad:
            raise RuntimeError(
                f"{op}: the output does not require grad: no operand did, or it was computed "
                "under no_grad"
            )
        data = t._data
        if g is not None:
            seed = as_tensor(g)
            if seed.shape != data.shape:
                raise ValueError(f"{op}: grad shape: expected {data.shape}, got {seed.shape}")
            if seed.dtype != data.dtype:
                seed = seed.astype(data.dtype)
        elif data.size == 1:
            seed = wrap(
                _ONES[data.dtype]
                if isinstance(data, np.ndarray) and data.ndim == 0 and data.dtype in _ONES
                else np.ones_like(data)
            )
        else:
            raise ValueError(
                f"{op}: grad: expected one of shape {data.shape}, got None; only a single element "
                "has an implicit gradient of 1"
            )
        seeds.append(seed if create_graph else seed._data)
    return seeds


_ONES = {np.dtype(dtype): np.ones((), dtype) for dtype in (np.float32, np.float64)}


def _walk(
    outputs: Sequence[Tensor],
    seeds: list[Any],
    retain: bool,
    record: bool,
    targets: dict[Any, Any] | None,
) -> None:
    """Run the rules from `outputs` down; gradients go to the leaves, or to `targets` where given."""
    k: Any = arrays
    if record:
        from vectile.autograd import composite as k  # late: it is built on Tensor's operators
    needed, inner = (None, None) if targets is None else _needed(outputs, targets)
    pending: dict[Node, Any] = {}  # gradients that are still being added up
    heap: list[tuple[int, Node]] = []  # their nodes, the newest first
    enabled = mode.enabled
    mode.enabled = record
    try:
        # An imaginary node above the outputs starts the walk.
        g: Any = None
        needs: Sequence[Any] = [t._node or t for t in outputs]
        if needed is not None:
            needs = [e if e in needed else None for e in needs]
        grads: Sequence[Any] = seeds
        while True:
            for e, new in zip(needs, grads, strict=False):
                if e is None:
                    continue
                if isinstance(e, Node):
                    old = pending.get(e)
                    if old is None:
                        pending[e] = new
                        heappush(heap, (-e.seq, e))
                    else:
                        pending[e] = _sum(k, old, new)
                else:
                    _arrive(k, e, new, g is not None and new is not g, targets)
            if not heap:
                return
            node = heappop(heap)[1]
            g = pending.pop(node)
            if isinstance(g, arrays.Slices):
                g = g.dense()
            needs = node.edges
            if inner is not None:
                if node in targets:  # type: ignore[operator]
                    targets[node] = g if record else g.copy()  # type: ignore[index]
                needs = [e if e in needed else None for e in needs] if node in inner else ()  # type: ignore[operator]
                if not needs:
                    continue
            grads = node.rule(k, needs, g, *_unpack(node, record), *node.params)
            if not retain:
                node.saved = node.out = None
                node.edges = ()
    finally:
        mode.enabled = enabled


def _sum(k: Any, old: Any, new: Any) -> Any:
    """Two contributions to one gradient."""
    if isinstance(old, arrays.Slices):
        old += new
        return old
    if isinstance(new, arrays.Slices):
        new += old
        return new
    return k.add(old, new)


def _arrive(k: Any, leaf: Tensor, new: Any, fresh: bool, targets: dict[Any, Any] | None) -> None:
    """Add `new` to what a leaf has; `fresh`: nobody else holds it."""
    if isinstance(new, arrays.Slices):
        new = new.dense()
    if targets is not None:
        old = targets[leaf]
        targets[leaf] = _own(new, fresh) if old is None else k.add(old, new)
    elif isinstance(new, Tensor):
        leaf.grad = _own(new, fresh) if leaf.grad is None else k.add(leaf.grad, new)
    else:
        old = leaf.grad
        leaf.grad = wrap(_own(new, fresh) if old is None else k.add(old._data, new))


def _own(g: Any, fresh: bool) -> Any:
    """`g` if it is nobody else's memory, else a copy: a leaf's gradient may be changed in place."""
    array: Array = g._data if isinstance(g, Tensor) else g
    return g if fresh and not is_array(array.base) else g.copy()


def _unpack(node: Node, record: bool) -> list[Any]:
    """What the rule gets back, after checking that nobody has changed it since."""
    if node.saved is None:
        raise _freed(node)
    values: list[Any] = []
    if node.out is not None:
        if node.version is not None and node.version.changed > node.seq:
            raise _changed(node, "its result", node.version)
        values.append(_restore(node) if record else node.out)
    for x in node.saved:
        if isinstance(x, Tensor):
            if x._version is not None and x._version.changed > node.seq:
                i = [y is x for y in node.saved].index(True)
                raise _changed(node, f"saved operand {i} of shape {x.shape}", x._version)
            values.append(x if record else x._data)
        else:
            values.append(x)
    return values


def _restore(node: Node) -> Tensor:
    """The result of `node` as a Tensor again."""
    out = wrap(node.out)
    out.requires_grad, out._node, out._version = True, node, node.version
    return out


def _freed(node: Node) -> RuntimeError:
    return RuntimeError(
        f"backward: the graph at {node.name} has already been freed; pass retain_graph=True to the first "
        "backward to go through it twice"
    )


def _changed(node: Node, what: str, version: Any) -> RuntimeError:
    return RuntimeError(
        f"backward: {node.name} needs {what} as it was, but {version.op} changed it in place "
        f"(saved at version {node.seq}, now at version {version.changed})"
    )


def _needed(outputs: Sequence[Tensor], targets: dict[Any, Any]) -> tuple[set[Any], set[Node]]:
    """What leads to a target (itself included), and the nodes among it whose rule must run for that."""
    nodes: set[Node] = set()
    stack: list[Any] = [t._node for t in outputs if t._node is not None]
    while stack:
        node = stack.pop()
        if node not in nodes:
            nodes.add(node)
            if node.saved is None:
                raise _freed(node)
            stack.extend([e for e in node.edges if isinstance(e, Node)])
    needed: set[Any] = set(targets)
    inner: set[Node] = set()
    for node in sorted(nodes, key=lambda n: n.seq):
        if any(e in needed for e in node.edges if e is not None):
            needed.add(node)
            inner.add(node)
    return needed, inner

"""The backward walk: newest node first, each visited once, without recursion."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Any

import numpy as np

from vectile.autograd import arrays
from vectile.autograd.tape import Node, mode
from vectile.autograd.tensor import Array, Tensor, TensorLike, as_tensor, wrap


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
    return tuple([wrap(g) if isinstance(g, np.ndarray) else g for g in found])


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
    seeds = []
    for t, g in zip(outputs, grads, strict=True):
        if not t.requires_grad:
            raise RuntimeError(
                f"{op}: the output does not require grad: no operand did, or it was computed under no_grad"
            )
        data = t._data
        if g is None:
            if data.size != 1:
                raise ValueError(
                    f"{op}: grad: expected one of shape {data.shape}, got None; only a single element "
                    "has an implicit gradient of 1"
                )
            seed: Any = np.ones(data.shape, data.dtype)
            seed = wrap(seed) if create_graph else seed
        else:
            seed = as_tensor(g)
            if seed.shape != data.shape:
                raise ValueError(f"{op}: grad shape: expected {data.shape}, got {seed.shape}")
            if seed.dtype != data.dtype:
                seed = seed.astype(data.dtype)
            seed = seed if create_graph else seed._data
        seeds.append(seed)
    return seeds


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
        from vectile.autograd import (
            composite as k,
        )  # late: it is built on functional, and that on Tensor
    needed, inner = (None, None) if targets is None else _needed(outputs, targets)
    pending: dict[Node, Any] = {}  # gradients that are still being added up
    heap: list[tuple[int, Node]] = []
    for t, seed in zip(outputs, seeds, strict=True):
        _send(k, t._node or t, seed, False, pending, heap, targets)
    enabled = mode.enabled
    mode.enabled = record
    try:
        while heap:
            node = heappop(heap)[1]
            g = pending.pop(node)
            if targets is not None:
                if node in targets:
                    targets[node] = g if record else g.copy()
                if inner is not None and node not in inner:
                    continue
            edges = node.edges
            saved = _unpack(node, record)
            needs = edges if needed is None else tuple([e if e in needed else None for e in edges])
            grads = node.rule(k, needs, g, *saved, *node.params)
            if not retain:
                node.saved = node.out = None
                node.edges = ()
            for e, new in zip(needs, grads, strict=False):
                if e is not None:
                    _send(k, e, new, new is not g, pending, heap, targets)
    finally:
        mode.enabled = enabled


def _send(
    k: Any,
    to: Any,
    new: Any,
    fresh: bool,
    pending: dict[Node, Any],
    heap: list[tuple[int, Node]],
    targets: dict[Any, Any] | None,
) -> None:
    """Add `new` to the gradient of a node or a leaf; `fresh`: nobody else holds the array."""
    if isinstance(to, Node):
        old = pending.get(to)
        if old is None:
            pending[to] = new
            heappush(heap, (-to.seq, to))
        else:
            pending[to] = (
                {**old, **new} if type(old) is dict else k.add(old, new)
            )  # a dict: see `split`
    elif targets is not None:
        if to in targets:
            old = targets[to]
            targets[to] = _own(new, fresh) if old is None else k.add(old, new)
    else:
        old = to.grad
        if k is arrays:
            to.grad = wrap(_own(new, fresh) if old is None else k.add(old._data, new))
        else:
            to.grad = _own(new, fresh) if old is None else k.add(old, new)


def _own(g: Any, fresh: bool) -> Any:
    """`g` if it is nobody else's memory, else a copy: a leaf's gradient may be changed in place."""
    array: Array = g._data if isinstance(g, Tensor) else g
    return g if fresh and not isinstance(array.base, np.ndarray) else g.copy()


def _unpack(node: Node, record: bool) -> list[Any]:
    """What the rule gets back, after checking that nobody has changed it since."""
    if node.saved is None:
        raise _freed(node)
    saved: list[Any] = []
    if node.out is not None:
        version = node.version
        if version is not None and version.changed > node.seq:
            raise _changed(node, "its result", version)
        saved.append(_restore(node) if record else node.out)
    for i, t in enumerate(node.saved):
        if isinstance(t, Tensor):
            version = t._version
            if version is not None and version.changed > node.seq:
                raise _changed(node, f"saved operand {i} of shape {t.shape}", version)
            saved.append(t if record else t._data)
        else:
            saved.append(t)
    return saved


def _restore(node: Node) -> Tensor:
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

"""Going back along the tape."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Any

import numpy as np

from convolith.autograd._kernels import add
from convolith.autograd._mode import recording
from convolith.autograd._operation import Node
from convolith.autograd._table import cast, sum_to
from convolith.autograd._tensor import Tensor, new_tensor


def backward(output: Tensor, gradient: Any = None, *, retain_graph: bool = False) -> None:
    """See Tensor.backward."""
    roots = [(_edge(output, "backward()"), _seed(output, gradient, "gradient"))]
    taken: set[int] = {id(roots[0][1].data)}
    with recording(False):
        for leaf, g in _walk(roots, None, retain_graph).items():
            assert isinstance(leaf, Tensor)
            data = g.data
            if leaf.grad is not None:
                leaf.grad = new_tensor(add(leaf.grad.data, data))
                continue
            # The array becomes the leaf's own: it must be nobody else's, and whole.
            if id(data) in taken or data.base is not None or not data.flags.writeable:
                data = data.copy()
            taken.add(id(data))
            leaf.grad = new_tensor(data)


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    *,
    create_graph: bool = False,
    retain_graph: bool | None = None,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """Gradients of outputs with respect to inputs; leaves' `grad` stay as they are.

    Args:
        outputs: One Tensor or several; the gradients of several are added.
        inputs: One Tensor or several, leaves or results.
        grad_outputs: Gradients of the outputs, in their shapes; None for 1, where an output has a
            single element.
        create_graph: Record the gradients' own computation, so that they have gradients too.
        retain_graph: Keep the graph for another backward; None keeps it with create_graph.
        allow_unused: Give None for an input that the outputs do not depend on.

    Returns:
        One Tensor for each input, of its shape.

    Raises:
        RuntimeError: As in Tensor.backward, and for an input that the outputs do not depend on.
    """
    ys = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    xs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    seeds = [grad_outputs] if isinstance(outputs, Tensor) else grad_outputs
    seeds = [None] * len(ys) if seeds is None else list(seeds)
    if len(seeds) != len(ys):
        raise ValueError(f"grad_outputs has {len(seeds)} entries; outputs has {len(ys)}")
    roots = [
        (_edge(y, f"outputs[{i}]"), _seed(y, seed, f"grad_outputs[{i}]"))
        for i, (y, seed) in enumerate(zip(ys, seeds, strict=True))
    ]
    targets = [_edge(x, f"inputs[{i}]") for i, x in enumerate(xs)]
    retain = create_graph if retain_graph is None else retain_graph
    with recording(create_graph):
        found = _walk(roots, set(targets), retain)
    for i, target in enumerate(targets):
        if target not in found and not allow_unused:
            raise RuntimeError(
                f"outputs do not depend on inputs[{i}]; allow_unused=True gives None for it"
            )
    return tuple([found.get(target) for target in targets])


def _edge(tensor: Tensor, name: str) -> Node | Tensor:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} is a {type(tensor).__name__}; it must be a Tensor")
    if not tensor.requires_grad:
        raise RuntimeError(f"{name}: the Tensor does not require a gradient")
    return tensor.node or tensor


def _seed(y: Tensor, gradient: Any, name: str) -> Tensor:
    if gradient is None:
        if y.data.size != 1:
            raise RuntimeError(
                f"{name} is None and the result has shape {y.shape}; "
                "only a single element has the gradient 1"
            )
        return new_tensor(np.ones_like(y.data))
    g = gradient if isinstance(gradient, Tensor) else Tensor(np.asarray(gradient, y.dtype))
    if g.shape != y.shape:
        raise ValueError(f"{name} has shape {g.shape}; it must be {y.shape}")
    return g


def _walk(
    roots: list[tuple[Node | Tensor, Tensor]],
    targets: set[Node | Tensor] | None,
    retain: bool,
) -> dict[Node | Tensor, Tensor]:
    """The gradients of the targets, or of all leaves.

    A node is visited when all of its consumers have been: they have greater numbers.
    """
    wanted = None if targets is None else _ancestors([edge for edge, _ in roots], targets)
    reaching = None if wanted is None or targets is None else wanted | targets
    pending: dict[Node | Tensor, Tensor] = {}
    summed: set[Node | Tensor] = set()
    queue: list[tuple[int, Node]] = []
    found: dict[Node | Tensor, Tensor] = {}

    def arrive(edge: Node | Tensor, g: Tensor, with_others: bool = False) -> None:
        like = edge if isinstance(edge, Node) else edge.data
        if g.data.shape != like.shape:  # the input was broadcast
            g = sum_to(g, like.shape)
        if g.data.dtype is not like.dtype and g.data.dtype != like.dtype:
            g = cast(g, like.dtype)
        before = pending.get(edge)
        if before is None:
            pending[edge] = g
            if isinstance(edge, Node):
                heappush(queue, (-edge.number, edge))
        elif with_others:
            summed.add(edge)
            pending[edge] = g
        elif edge in summed and not before.requires_grad and not g.requires_grad:
            add(before.data, g.data, out=before.data)  # ours alone
        else:
            summed.add(edge)
            pending[edge] = before + g

    for edge, g in roots:
        arrive(edge, g)
    while queue:
        node = heappop(queue)[1]
        g = pending.pop(node)
        if targets is not None and node in targets:
            found[node] = g
        if wanted is not None and node not in wanted:
            continue
        if node.edges is None:
            raise RuntimeError(
                f"the graph of {node.operation.name} was freed by an earlier backward; "
                "give that one retain_graph=True"
            )
        for edge, gradient, with_others in node.operation.gradients(node, g, pending, reaching):
            arrive(edge, gradient, with_others)
        if not retain:
            node.free()
    for edge, g in pending.items():
        if targets is None or edge in targets:
            found[edge] = g
    return found


def _ancestors(roots: Sequence[Node | Tensor], targets: set[Node | Tensor]) -> set[Node | Tensor]:
    """The nodes at or behind the roots from which a target is reached in one step or more."""
    reached: set[Node] = set()
    waiting = [edge for edge in roots if isinstance(edge, Node)]
    while waiting:
        node = waiting.pop()
        if node not in reached:
            reached.add(node)
            waiting.extend(edge for edge in node.edges or () if isinstance(edge, Node))
    useful: set[Node | Tensor] = set()
    for node in sorted(reached, key=lambda node: node.number):
        freed = node.edges is None  # the walk shall find it and say so
        if freed or any(edge in useful or edge in targets for edge in node.edges or ()):
            useful.add(node)
    return useful

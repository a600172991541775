"""The tape: operations, and the nodes that their calls leave behind.

An operation is a function on arrays and one gradient for each of its inputs. A gradient is a
function that says by the names of its parameters what it wants to see:

    g              the gradient of the result
    y              the result
    shape          the shape of the input whose gradient this is
    so_far         the sum of that input's gradients from elsewhere, or None: it is added
    anything else  the input, the option or the extra result of that name

What no gradient asks for is not kept. Gradients are written in Tensor functions, which are
operations themselves: with recording on, the gradient of a gradient comes for free.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from convolith.autograd._mode import mode
from convolith.autograd._tensor import Tensor, new_tensor

Rule = Callable[..., Any]

_numbers = itertools.count()


def _parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of those that a call may give by position."""
    found = inspect.signature(function).parameters.values()
    return tuple(p.name for p in found if p.kind != p.KEYWORD_ONLY)


class Node:
    """A recorded call: where its inputs come from, and what its gradients want to see.

    Numbers grow along the tape, so that a node's consumers all have greater ones.
    """

    __slots__ = (
        "dtype",
        "edges",
        "extras",
        "number",
        "operation",
        "options",
        "saved",
        "shape",
        "y",
    )

    operation: Operation
    number: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    edges: tuple[Node | Tensor | None, ...] | None
    options: tuple[Any, ...]
    saved: list[tuple[str, Any, int]]
    y: tuple[Any, list[int], int] | None
    extras: tuple[Any, ...]

    def free(self) -> None:
        """Let go of the inputs and of what was saved; there is no second backward."""
        self.edges = None
        self.saved = []
        self.y = None
        self.extras = self.options = ()

    def __repr__(self) -> str:
        """The operation and the shape of its result."""
        return f"<{self.operation.name} {self.shape}>"


class Operation:
    """A differentiable function; called with Tensors (or arrays, which are constants).

    Args:
        name: For messages.
        forward: The function on arrays: the inputs, then the options. With `extras` it returns a
            tuple: the result, and more for the gradients to see.
        before: Applied to g once, for all of the gradients.
        together: One function in place of all gradients, which returns a tuple of them; it may ask
            for `wanted`, a tuple of flags.
        view: The result may share the memory of the first input.
        extras: Names of the extra results.
        inputs: Names of the inputs, where no gradients give them. Without any, the number of inputs
            is free, and the forward takes a list of them.
        gradients: One for each input by its name; None where there is none.
    """

    def __init__(
        self,
        name: str,
        forward: Callable[..., Any],
        *,
        before: Rule | None = None,
        together: Rule | None = None,
        view: bool = False,
        extras: tuple[str, ...] = (),
        inputs: tuple[str, ...] = (),
        **gradients: Rule | None,
    ) -> None:
        self.name = name
        self.forward = forward
        self.inputs = inputs or tuple(gradients)
        self.extras = extras
        self.view = view
        self.together = together
        self.before = before
        self.rules = [
            None if rule is None else (rule, _parameters(rule)) for rule in gradients.values()
        ]
        self.before_needs = _parameters(before) if before else ()
        self.together_needs = _parameters(together) if together else ()
        if isinstance(forward, np.ufunc):
            self.options: tuple[str, ...] = ()
            self.variadic = False
        else:
            self.variadic = not self.inputs
            self.options = _parameters(forward)[1 if self.variadic else len(self.inputs) :]
        self.__name__ = name
        # Without an activation the gradients of an epilogue do not look at the result.
        named = "activation" in self.options
        self.activation = self.options.index("activation") if named else None
        self._plans: dict[int, tuple[tuple[tuple[int, str], ...], bool]] = {}

    def _plan(self, mask: int) -> tuple[tuple[tuple[int, str], ...], bool]:
        """Which inputs to save, and whether the result, when those of `mask` want gradients."""
        needs = {*self.before_needs, *self.together_needs}
        for i, rule in enumerate(self.rules):
            if rule and mask >> i & 1:
                needs.update(rule[1])
        saved = tuple((i, name) for i, name in enumerate(self.inputs) if name in needs)
        plan = self._plans[mask] = (saved, "y" in needs)
        return plan

    def __call__(self, *arguments: Any) -> Tensor:
        """The result of the forward, recorded where an input requires a gradient."""
        count = len(arguments) - len(self.options) if self.variadic else len(self.inputs)
        arrays = list(arguments)
        mask = 0
        for i in range(count):
            value = arguments[i]
            if isinstance(value, Tensor):
                arrays[i] = value.data
                if value.requires_grad and (self.together or self.rules[i]):
                    mask |= 1 << i
        extras: tuple[Any, ...] = ()
        if self.variadic:
            result = self.forward(arrays[:count], *arguments[count:])
        else:
            result = self.forward(*arrays)
        if self.extras:
            result, *rest = result
            extras = tuple(rest)
        y = new_tensor(result if type(result) is np.ndarray else np.asarray(result))
        if self.view and isinstance(arguments[0], Tensor):
            y.share_version(arguments[0])
        if mask and mode.recording:
            saved, keeps_y = self._plans.get(mask) or self._plan(mask)
            node = Node()
            node.operation = self
            node.number = next(_numbers)
            node.shape = y.data.shape
            node.dtype = y.data.dtype
            node.edges = tuple(
                [
                    (value.node or value) if mask >> i & 1 else None
                    for i, value in enumerate(arguments[:count])
                ]
            )
            node.options = arguments[count:]
            node.extras = extras
            node.saved = [
                (name, value, value.version[0] if isinstance(value, Tensor) else 0)
                for name, value in [(name, arguments[i]) for i, name in saved]
            ]
            if self.activation is not None and node.options[self.activation] is None:
                keeps_y = False
            node.y = (y.data, y.version, y.version[0]) if keeps_y else None
            y.node = node
            y.requires_grad = True
        return y

    def gradients(
        self,
        node: Node,
        g: Tensor,
        so_far: dict[Node | Tensor, Tensor],
        wanted: set[Node | Tensor] | None = None,
    ) -> Iterator[tuple[Node | Tensor, Any, bool]]:
        """The gradients of a recorded call's inputs, given that of its result, and whether what
        there was so far is in them.

        Args:
            node: The call.
            g: Gradient of its result.
            so_far: Gradients from other calls.
            wanted: The edges whose gradients to compute; None for all that require one.
        """
        assert node.edges is not None
        edges = node.edges
        if wanted is not None:
            edges = tuple([edge if edge in wanted else None for edge in edges])
        seen: dict[str, Any] = {"g": g, "y": None}
        for name, value, version in node.saved:
            if isinstance(value, Tensor) and value.version[0] != version:
                raise _changed(self.name, f"its input {name!r}", value.data.shape)
            seen[name] = value
        if node.y is not None:
            data, counter, version = node.y
            if counter[0] != version:
                raise _changed(self.name, "its result", data.shape)
            y = seen["y"] = new_tensor(data)
            y.node, y.requires_grad, y.version = node, True, counter
        seen.update(zip(self.options, node.options, strict=True))
        seen.update(zip(self.extras, node.extras, strict=True))
        if self.before:
            seen["g"] = self.before(*[seen[name] for name in self.before_needs])
        if self.together:
            seen["wanted"] = tuple([edge is not None for edge in edges])
            found = self.together(*[seen[name] for name in self.together_needs])
            for edge, gradient in zip(edges, found, strict=True):
                if edge is not None:
                    yield edge, gradient, False
            return
        for edge, rule in zip(edges, self.rules, strict=True):
            if edge is not None and rule is not None:
                seen["shape"] = edge.shape
                seen["so_far"] = so_far.get(edge)
                gradient = rule[0](*[seen[name] for name in rule[1]])
                yield edge, gradient, "so_far" in rule[1]


def _changed(operation: str, what: str, shape: tuple[int, ...]) -> RuntimeError:
    return RuntimeError(
        f"{operation} saved {what} of shape {shape} for its gradient, and it was changed in place "
        "since; change a copy, or call backward before"
    )

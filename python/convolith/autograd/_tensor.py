"""A NumPy array that remembers where it came from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from convolith.autograd._mode import mode

if TYPE_CHECKING:
    from convolith.autograd._operation import Node

Array = npt.NDArray[Any]
Axes = int | Sequence[int] | None


class Tensor:
    """A NumPy array with a gradient.

    The array is taken as it is, without a copy, and `data` hands it out. Operations with Tensors
    that require gradients are recorded; `backward` then adds the gradients to the leaves' `grad`.
    A change in place through a Tensor (`x[i] = v`, `x += v`) is noticed where a gradient needs the
    old elements; a change through the array is not.

    Args:
        data: An array, or what np.asarray makes one of. Gradients need float32 or float64.
        requires_grad: Whether gradients of this Tensor are wanted.

    Attributes:
        data: The array.
        grad: The gradient, a Tensor of the same shape, once a backward has reached this leaf.
        requires_grad: Whether this Tensor is a leaf that wants a gradient, or depends on one.
        node: What the operation that made this Tensor left on the tape; None for a leaf.
        version: The number of changes in place, shared among views, and whether there are views.

    Raises:
        TypeError: A gradient for another dtype than float32 and float64.
    """

    __slots__ = ("__weakref__", "data", "grad", "node", "requires_grad", "version")
    __array_ufunc__ = None  # array + Tensor is a Tensor

    data: Array
    grad: Tensor | None
    node: Node | None
    requires_grad: bool
    version: list[int]

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        self.data = data if type(data) is np.ndarray else np.asarray(data)
        self.grad = None
        self.node = None
        self.version = [0, 0]
        self.requires_grad = False
        if requires_grad:
            self.requires_grad_()

    # ---- as an array -------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents."""
        return self.data.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The array's dtype."""
        return self.data.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.data.ndim

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.data.size

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded operation made this Tensor."""
        return self.node is None

    def numpy(self) -> Array:
        """The array itself."""
        return self.data

    def item(self) -> Any:
        """The only element, as a Python number."""
        return self.data.item()

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        """The array itself, or a copy where `dtype` or `copy` ask for one."""
        if copy:
            return np.array(self.data, dtype)
        if copy is False and dtype is not None and np.dtype(dtype) != self.data.dtype:
            raise ValueError(f"dtype {np.dtype(dtype)} needs a copy; this Tensor is {self.dtype}")
        return np.asarray(self.data, dtype)

    def __dlpack__(self, **options: Any) -> Any:
        """A DLPack capsule of the array, which shares its memory."""
        return self.data.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        """(1, 0): the CPU."""
        return self.data.__dlpack_device__()

    def __len__(self) -> int:
        """Extent of the first axis."""
        return len(self.data)

    def __iter__(self) -> Iterator[Tensor]:
        """Along the first axis."""
        return (self[i] for i in range(len(self.data)))

    def __bool__(self) -> bool:
        """Truth of the only element."""
        return bool(self.data)

    def __float__(self) -> float:
        """The only element."""
        return float(self.data.item())

    def __int__(self) -> int:
        """The only element, truncated."""
        return int(self.data.item())

    def __index__(self) -> int:
        """The only element of an integer Tensor."""
        return self.data.__index__()

    def __repr__(self) -> str:
        """The elements, and where they came from."""
        text = repr(self.data).replace("\n", "\n ").removeprefix("array(").removesuffix(")")
        if self.node is not None:
            text += f", from={self.node.operation.name}"
        elif self.requires_grad:
            text += ", requires_grad=True"
        return f"{type(self).__name__}({text})"

    # ---- gradients ---------------------------------------------------------------------------

    def requires_grad_(self, on: bool = True) -> Tensor:
        """Want a gradient, or want none; for leaves. Returns the Tensor.

        Args:
            on: Whether a gradient is wanted.
        """
        if on and self.data.dtype.char not in "fd":
            raise TypeError(
                f"requires_grad is True and the dtype {self.dtype}; "
                "gradients are for float32 and float64"
            )
        if not on and self.node is not None:
            raise RuntimeError(
                "requires_grad_(False) on a result of a recorded operation; detach() it"
            )
        self.requires_grad = on
        return self

    def backward(self, gradient: Any = None, *, retain_graph: bool = False) -> None:
        """Add the gradients of this Tensor to the `grad` of the leaves that it depends on.

        The graph is freed on the way.

        Args:
            gradient: Gradient of this Tensor, of its shape; 1 if None, for a single element.
            retain_graph: Keep the graph for another backward.

        Raises:
            RuntimeError: The graph was freed before, nothing requires a gradient, or an array
                that a gradient needs was changed in place.
        """
        _engine.backward(self, gradient, retain_graph=retain_graph)

    def detach(self) -> Tensor:
        """The same array, cut off from the tape."""
        result = new_tensor(self.data)
        result.share_version(self)
        return result

    def share_version(self, base: Tensor) -> None:
        """Count changes in place together with those of `base`, if the memory is the same."""
        if np.may_share_memory(self.data, base.data):
            self.version = base.version
            self.version[1] = 1

    def changed_in_place(self) -> None:
        """Say that the elements were changed: gradients that need the old ones will refuse."""
        self.version[0] += 1

    def _refuse_in_place(self, other: Any) -> bool:
        """Whether a change must be recorded; RuntimeError where it cannot be."""
        if not mode.recording or not (
            self.requires_grad or (isinstance(other, Tensor) and other.requires_grad)
        ):
            return False
        if self.node is None and self.requires_grad:
            raise RuntimeError(
                "a leaf that requires a gradient cannot be changed in place; do it under no_grad()"
            )
        if self.version[1]:
            raise RuntimeError(
                "a Tensor that shares its memory with a view cannot be changed in place while "
                "operations are recorded; change a copy, or do it under no_grad()"
            )
        return True

    def _in_place(self, other: Any, operation: Any) -> Tensor:
        """Self becomes operation(self, other), in its own memory."""
        if self._refuse_in_place(other):
            result = operation(self, other)
            if result.shape != self.shape:
                raise ValueError(f"a result of shape {result.shape} does not fit {self.shape}")
            self.data[...] = result.data
            self.changed_in_place()
            self.node, self.requires_grad = result.node, True
        else:
            operation.forward(self.data, _data(other), out=self.data)
            self.changed_in_place()
        return self

    def __setitem__(self, index: Any, value: Any) -> None:
        """Change elements in place."""
        index = _plain_index(index)
        if self._refuse_in_place(value):
            result = _table.replaced(self, value, index)
            self.data[index] = _data(value)
            self.node, self.requires_grad = result.node, True
        else:
            self.data[index] = _data(value)
        self.changed_in_place()

    def __iadd__(self, other: Any) -> Tensor:
        """Add in place."""
        return self._in_place(other, _table.add)

    def __isub__(self, other: Any) -> Tensor:
        """Subtract in place."""
        return self._in_place(other, _table.subtract)

    def __imul__(self, other: Any) -> Tensor:
        """Multiply in place."""
        return self._in_place(other, _table.multiply)

    def __itruediv__(self, other: Any) -> Tensor:
        """Divide in place."""
        return self._in_place(other, _table.divide)

    # ---- operators ---------------------------------------------------------------------------

    def __add__(self, other: Any) -> Tensor:
        """Sum."""
        return _table.add(self, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Tensor:
        """Difference."""
        return _table.subtract(self, other)

    def __rsub__(self, other: Any) -> Tensor:
        """Difference."""
        return _table.subtract(other, self)

    def __mul__(self, other: Any) -> Tensor:
        """Product, element by element."""
        return _table.multiply(self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Tensor:
        """Quotient."""
        return _table.divide(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        """Quotient."""
        return _table.divide(other, self)

    def __pow__(self, other: Any) -> Tensor:
        """Power."""
        return _table.power(self, other)

    def __rpow__(self, other: Any) -> Tensor:
        """Power."""
        return _table.power(other, self)

    def __neg__(self) -> Tensor:
        """Negative."""
        return _table.negative(self)

    def __abs__(self) -> Tensor:
        """Absolute value."""
        return _table.absolute(self)

    def __matmul__(self, other: Any) -> Tensor:
        """Matrix product."""
        return functional.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        """Matrix product."""
        return functional.matmul(other, self)

    def __getitem__(self, index: Any) -> Tensor:
        """Elements, a view where NumPy gives one."""
        return _table.take(self, _plain_index(index))

    def __eq__(self, other: object) -> Any:
        """Where elements are equal, a bool Tensor."""
        return new_tensor(np.asarray(self.data == _data(other)))

    def __ne__(self, other: object) -> Any:
        """Where elements differ, a bool Tensor."""
        return new_tensor(np.asarray(self.data != _data(other)))

    def __lt__(self, other: Any) -> Tensor:
        """Where elements are less, a bool Tensor."""
        return new_tensor(np.asarray(self.data < _data(other)))

    def __le__(self, other: Any) -> Tensor:
        """Where elements are less or equal, a bool Tensor."""
        return new_tensor(np.asarray(self.data <= _data(other)))

    def __gt__(self, other: Any) -> Tensor:
        """Where elements are greater, a bool Tensor."""
        return new_tensor(np.asarray(self.data > _data(other)))

    def __ge__(self, other: Any) -> Tensor:
        """Where elements are greater or equal, a bool Tensor."""
        return new_tensor(np.asarray(self.data >= _data(other)))

    __hash__ = object.__hash__

    # ---- methods that functional has as functions ----------------------------------------------

    @property
    def T(self) -> Tensor:
        """The axes in reverse order, a view."""
        return functional.transpose(self)

    def reshape(self, *shape: Any) -> Tensor:
        """See `functional.reshape`; the extents may also be separate arguments."""
        return functional.reshape(self, shape[0] if len(shape) == 1 else shape)

    def transpose(self, *axes: Any) -> Tensor:
        """See `functional.transpose`; the axes may also be separate arguments."""
        return functional.transpose(self, axes[0] if len(axes) == 1 else axes or None)

    def flatten(self, start_axis: int = 0) -> Tensor:
        """See `functional.flatten`."""
        return functional.flatten(self, start_axis)

    def sum(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """See `functional.sum`."""
        return functional.sum(self, axis, keepdims)

    def mean(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """See `functional.mean`."""
        return functional.mean(self, axis, keepdims)

    def var(self, axis: Axes = None, keepdims: bool = False, correction: int = 0) -> Tensor:
        """See `functional.var`."""
        return functional.var(self, axis, keepdims, correction)

    def max(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """See `functional.max`."""
        return functional.max(self, axis, keepdims)

    def min(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """See `functional.min`."""
        return functional.min(self, axis, keepdims)

    def exp(self) -> Tensor:
        """Exponential."""
        return _table.exp(self)

    def log(self) -> Tensor:
        """Natural logarithm."""
        return _table.log(self)

    def sqrt(self) -> Tensor:
        """Square root."""
        return _table.sqrt(self)

    def abs(self) -> Tensor:
        """Absolute value."""
        return _table.absolute(self)

    def argmax(self, axis: int | None = None) -> Array:
        """Indices of the greatest elements, an array."""
        return np.asarray(self.data.argmax(axis))


def new_tensor(data: Array) -> Tensor:
    """A leaf of an array, without checks."""
    result = _new(Tensor)
    result.data = data
    result.grad = None
    result.node = None
    result.version = [0, 0]
    result.requires_grad = False
    return result


_new = object.__new__


def _data(value: Any) -> Any:
    return value.data if isinstance(value, Tensor) else value


def _plain_index(index: Any) -> Any:
    """An index without Tensors."""
    if isinstance(index, tuple):
        return tuple(map(_data, index))
    return _data(index)


# Tensor's methods call what is made of Tensors.
from convolith.autograd import _engine, _table, functional  # noqa: E402

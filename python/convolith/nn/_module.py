"""Modules: what has parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from convolith._arguments import Array
from convolith.autograd import Tensor, is_recording
from convolith.nn import safetensors


class Parameter(Tensor):
    """A Tensor that a module learns.

    Args:
        data: The array.
        requires_grad: Whether it is learned; without it, it is frozen.
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data, requires_grad)


class Buffer(Tensor):
    """A Tensor that belongs to a module's state and is not learned, such as a running mean.

    Args:
        data: The array.
    """

    __slots__ = ()

    def __init__(self, data: Any) -> None:
        super().__init__(data)


class Module:
    """A function with parameters.

    A module's parameters, buffers and children are its attributes of type Parameter, Buffer and
    Module, in the order in which they were set, and their names are those of the attributes, with
    dots between those of children. Subclasses define `forward`, which calling the module calls.

    Attributes:
        training: Whether the module behaves as in training; see `train`.
        folds: Whether there is a method `after(layer, x)` that can do the work of two.
    """

    training = True
    folds = False

    def forward(self, *inputs: Any) -> Any:
        """The function.

        Args:
            inputs: Whatever it takes.
        """
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def __call__(self, *inputs: Any) -> Any:
        """See forward."""
        return self.forward(*inputs)

    # ---- what there is -----------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Pairs (name, module), of the direct children."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Pairs (name, module), of this module and all below it.

        Args:
            prefix: Set before the names.
        """
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator[Module]:
        """This module and all below it."""
        return (module for _, module in self.named_modules())

    def _named(self, kinds: Any) -> Iterator[tuple[str, Any]]:
        for prefix, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, kinds):
                    yield f"{prefix}.{name}" if prefix else name, value

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Pairs (name, parameter); one that several modules share comes once."""
        seen: set[int] = set()
        for name, parameter in self._named(Parameter):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield name, parameter

    def parameters(self) -> Iterator[Parameter]:
        """The parameters of this module and all below it."""
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Buffer]]:
        """Pairs (name, buffer)."""
        return self._named(Buffer)

    def parameter_count(self) -> int:
        """The number of elements of all parameters."""
        return sum(parameter.size for parameter in self.parameters())

    # ---- state -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Array]:
        """The arrays of parameters and buffers by name; the arrays themselves, not copies."""
        return {name: tensor.data for name, tensor in self._named((Parameter, Buffer))}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Copy arrays into the parameters and buffers of their names.

        Counters of batches (num_batches_tracked) may be absent, as in older checkpoints.

        Args:
            state: Arrays or Tensors by name.
            strict: Names that are missing or unknown are errors.

        Raises:
            ValueError: Names or shapes that do not fit; the message lists them, and nothing was
                copied.
        """
        state = self.adapt_state_dict(dict(state))
        own = dict(self._named((Parameter, Buffer)))
        problems = []
        for name, tensor in own.items():
            if name not in state:
                if strict and not name.endswith("num_batches_tracked"):
                    problems.append(f"{name} is missing, shape {tensor.shape}")
            elif np.shape(state[name]) != tensor.shape:
                shape = np.shape(state[name])
                problems.append(f"{name} has shape {shape}; it must be {tensor.shape}")
        if strict:
            problems += [f"{name} is unknown" for name in state if name not in own]
        if problems:
            more = f"; and {len(problems) - 20} more" if len(problems) > 20 else ""
            raise ValueError(
                f"the state does not fit {type(self).__name__}: {'; '.join(problems[:20])}{more}"
            )
        for name, tensor in own.items():
            if name in state:
                np.copyto(tensor.data, np.asarray(state[name]), casting="same_kind")
                tensor.changed_in_place()

    def adapt_state_dict(self, state: dict[str, Any]) -> dict[str, Any]:
        """The state with names as this module has them; for formats of older checkpoints.

        Args:
            state: What load_state_dict was given.
        """
        return state

    def save(self, path: str | PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
        """Write the state to a safetensors file, at once or not at all.

        Args:
            path: The file.
            metadata: Words to keep with it.
        """
        safetensors.save_file(self.state_dict(), path, metadata)

    def load(self, path: str | PathLike[str], strict: bool = True) -> None:
        """Read the state from a safetensors file.

        Args:
            path: The file.
            strict: As in load_state_dict.

        Raises:
            ValueError: A file that is no safetensors file, or that does not fit.
        """
        self.load_state_dict(safetensors.load_file(path), strict)

    # ---- modes -------------------------------------------------------------------------------

    def train(self, on: bool = True) -> Module:
        """Behave as in training, or not: norms use the batch's statistics, dropout drops.

        Args:
            on: Whether this is training.

        Returns:
            The module.
        """
        for module in self.modules():
            module.training = on
        return self

    def eval(self) -> Module:
        """train(False)."""
        return self.train(False)

    def requires_grad_(self, on: bool = True) -> Module:
        """Learn the parameters, or freeze them.

        Args:
            on: Whether they are learned.

        Returns:
            The module.
        """
        for parameter in self.parameters():
            parameter.requires_grad_(on)
        return self

    def zero_grad(self) -> None:
        """Forget the gradients of the parameters."""
        for parameter in self.parameters():
            parameter.grad = None

    def to(self, dtype: npt.DTypeLike) -> Module:
        """Convert floating parameters and buffers.

        Args:
            dtype: float32 or float64.

        Returns:
            The module.
        """
        if np.dtype(dtype).char not in "fd":
            raise TypeError(f"dtype is {np.dtype(dtype)}; it must be float32 or float64")
        for _, tensor in self._named((Parameter, Buffer)):
            if tensor.data.dtype.kind == "f":
                tensor.data = tensor.data.astype(dtype, copy=False)
        return self

    def apply(self, function: Callable[[Module], Any]) -> Module:
        """Call a function with every module, children first.

        Args:
            function: Takes a module.

        Returns:
            The module.
        """
        for _, child in self.named_children():
            child.apply(function)
        function(self)
        return self

    # ---- text --------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """The arguments of the module, for its text."""
        return ""

    def __repr__(self) -> str:
        """The module and those below it, one line each."""
        lines = []
        for name, child in self.named_children():
            lines.append(f"  ({name}): " + repr(child).replace("\n", "\n  "))
        head = f"{type(self).__name__}({self.extra_repr()}"
        return "\n".join([head, *lines, ")"]) if lines else head + ")"


class Sequential(Module):
    """Modules one after the other.

    Args:
        modules: They get the names "0", "1", ...; or one dict from names to modules.
    """

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            named = dict(modules[0])
        else:
            named = {str(i): module for i, module in enumerate(modules)}  # type: ignore[misc]
        for name, module in named.items():
            setattr(self, name, module)

    def __iter__(self) -> Iterator[Module]:
        """The modules in their order."""
        return (module for _, module in self.named_children())

    def __len__(self) -> int:
        """Their number."""
        return sum(1 for _ in self.named_children())

    def __getitem__(self, index: int) -> Module:
        """One of them."""
        return list(self)[index]

    def append(self, module: Module) -> Sequential:
        """Add a module at the end, named by its position.

        Args:
            module: The module.

        Returns:
            The sequence.
        """
        setattr(self, str(len(self)), module)
        return self

    def forward(self, x: Any) -> Any:
        """The last module's result.

        Args:
            x: What the first module takes.
        """
        layers = [value for value in vars(self).values() if isinstance(value, Module)]
        if is_recording():
            for layer in layers:
                x = layer.forward(x)
            return x
        waiting: Module | None = None  # a layer that the one behind it may take in
        for layer in layers:
            if waiting is not None and layer.folds:
                x = layer.after(waiting, x)  # type: ignore[attr-defined]
                waiting = None
                continue
            x = x if waiting is None else waiting.forward(x)
            waiting = layer
        return x if waiting is None else waiting.forward(x)


class ModuleList(Module):
    """Modules in a list, named by their positions.

    Args:
        modules: The modules.
    """

    def __init__(self, modules: Any = ()) -> None:
        for module in modules:
            self.append(module)

    def __iter__(self) -> Iterator[Module]:
        """The modules in their order."""
        return (module for _, module in self.named_children())

    def __len__(self) -> int:
        """Their number."""
        return sum(1 for _ in self.named_children())

    def __getitem__(self, index: int) -> Module:
        """One of them."""
        return list(self)[index]

    def append(self, module: Module) -> ModuleList:
        """Add a module at the end.

        Args:
            module: The module.

        Returns:
            The list.
        """
        setattr(self, str(len(self)), module)
        return self

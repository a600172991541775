"""A problem: one call of one operation, written as one line of text.

    conv2d n2 c3 i9x7 k4 f3x3 s2x1 p1:0x0:1 bias float32 data=integers seed=1
    max_pool2d backward c2 i5x5 f3x3 s2x2 p1:1x1:1 ceil channels_last

Letters: batch `n`, channels `c`, output channels `k`, groups `g`, and per axis, joined by `x`:
input extents `i`, kernel `f`, stride `s`, dilation `d`, padding `p` (before:after, or a word as in
psame), output size `o`. Then words, and name=value pairs. What is left out has its default.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

DIRECTIONS = ("forward", "backward", "backward_input", "backward_weight")
DTYPES = ("float16", "float32", "float64")
DATA_FORMATS = ("channels_first", "channels_last")

_COUNTS = {"n": "batch", "c": "in_channels", "k": "out_channels", "g": "groups"}
_TUPLES = {"i": "input", "f": "kernel", "s": "stride", "d": "dilation", "o": "output_size"}
_LETTERS = {**_COUNTS, **_TUPLES, "p": "padding"}
_ORDER = tuple(_LETTERS[letter] for letter in "ncikfsopdg")
_NAME_OF = {name: letter for letter, name in _LETTERS.items()}

Geometry = dict[str, Any]


def rank_of(op: str) -> int:
    """Spatial axes of an operation, from its name; 0 where that does not tell."""
    found = re.search(r"([123])d$", op)
    return int(found[1]) if found else 0


@dataclass(frozen=True)
class Problem:
    """One call: the operation and direction, its geometry, and how its data are made.

    The geometry's values are attributes too, with their defaults: `problem.stride`,
    `problem.groups`, `problem.padding` (a pair per axis, or "same", "same_lower", "valid"). One
    that an operation has no use for is None or its default.
    """

    op: str
    direction: str = "forward"
    dtype: str = "float32"
    data_format: str = "channels_first"
    data: str = "integers"
    seed: int = 0
    geometry: tuple[tuple[str, Any], ...] = ()

    @staticmethod
    def make(op: str, direction: str = "forward", **values: Any) -> Problem:
        """A problem of keyword arguments; an integer for one per axis serves all axes."""
        fields = {
            name: values.pop(name)
            for name in ("dtype", "data_format", "data", "seed")
            if name in values
        }
        return Problem(op, direction, **fields).replace(**values)

    @staticmethod
    def parse(text: str) -> Problem:
        """The problem of a line of text; ValueError names the word that is wrong."""
        op, *words = text.split()
        values: Geometry = {}
        for word in words:
            if word in DIRECTIONS:
                values["direction"] = word
            elif word in DTYPES:
                values["dtype"] = word
            elif word in DATA_FORMATS:
                values["data_format"] = word
            elif found := re.fullmatch(r"(\w+)=(.+)", word):
                values[found[1]] = found[2] if found[1] == "data" else _value(found[2])
            elif found := re.fullmatch(r"([ncgk])(\d+)", word):
                values[_LETTERS[found[1]]] = int(found[2])
            elif found := re.fullmatch(r"([ifsdo])(\d+(?:x\d+)*)", word):
                values[_LETTERS[found[1]]] = tuple(int(part) for part in found[2].split("x"))
            elif found := re.fullmatch(r"p(\d+(?::\d+)?(?:x\d+(?::\d+)?)*)", word):
                pairs = (part.partition(":")[::2] for part in found[1].split("x"))
                values["padding"] = tuple((int(a), int(b or a)) for a, b in pairs)
            elif word in ("psame", "psame_lower", "pvalid"):
                values["padding"] = word[1:]
            elif re.fullmatch(r"[a-z][a-z_]+", word):
                values[word] = True
            else:
                raise ValueError(f"problem {text!r}: {word!r} is not understood")
        return Problem.make(op, values.pop("direction", "forward"), **values)

    @property
    def rank(self) -> int:
        """The number of spatial axes."""
        return rank_of(self.op) or len(self.get("input", ()))

    def get(self, name: str, default: Any = None) -> Any:
        """One value of the geometry."""
        return dict(self.geometry).get(name, default)

    def __getattr__(self, name: str) -> Any:
        """A value of the geometry, or its default."""
        if name.startswith("_"):
            raise AttributeError(name)
        found = dict(object.__getattribute__(self, "geometry")).get(name)
        if found is not None:
            return found
        if name == "padding":
            return ((0, 0),) * self.rank
        if name == "stride" and "pool" in self.op:
            return self.kernel
        if name in ("stride", "dilation"):
            return (1,) * self.rank
        if name in ("batch", "groups"):
            return 1
        return None

    def replace(self, **changes: Any) -> Problem:
        """The same with other values; None, False or a default leaves one out."""
        fields = {
            name: changes.pop(name)
            for name in ("op", "direction", "dtype", "data_format", "data", "seed")
            if name in changes
        }
        base = replace(self, **fields)
        geometry = dict(base.geometry)
        for name, value in changes.items():
            if name in _NAME_OF and name not in _COUNTS.values():
                value = _per_axis(value, base.rank, name)
            geometry.pop(name, None)
            if value is None or value is False:
                continue
            if getattr(replace(base, geometry=tuple(geometry.items())), name) == value:
                continue
            geometry[name] = value
        return replace(base, geometry=tuple(sorted(geometry.items())))

    def __str__(self) -> str:
        """The line of text that `parse` takes."""
        return " ".join(self._words())

    def _words(self) -> Iterator[str]:
        geometry = dict(self.geometry)
        yield self.op
        if self.direction != "forward":
            yield self.direction
        for name in _ORDER:
            if (value := geometry.pop(name, None)) is not None:
                yield _NAME_OF[name] + _spell(name, value)
        for name, value in geometry.items():
            yield name if value is True else f"{name}={_spell(name, value)}"
        yield self.dtype
        if self.data_format != "channels_first":
            yield self.data_format
        yield f"data={self.data}"
        if self.seed:
            yield f"seed={self.seed}"


def _per_axis(value: Any, rank: int, name: str) -> Any:
    if value is None or isinstance(value, str) or not rank:
        return value
    if isinstance(value, int):
        value = (value,) * rank
    value = tuple(value) * (rank if len(value) == 1 else 1)
    if name == "padding":
        value = tuple((p, p) if isinstance(p, int) else tuple(p) for p in value)
    return value


def _value(text: str) -> Any:
    if re.fullmatch(r"\d+(x\d+)+", text):
        return tuple(int(part) for part in text.split("x"))
    if found := re.fullmatch(r"(leaky_relu):(.+)", text):
        return found[1], float(found[2])
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return float(text) if text in ("inf", "nan") else text


def _spell(name: str, value: Any) -> str:
    if name == "padding" and not isinstance(value, str):
        return "x".join(f"{before}:{after}" for before, after in value)
    if isinstance(value, tuple) and isinstance(value[0], str):
        return ":".join(map(str, value))
    if isinstance(value, tuple):
        return "x".join(map(str, value)) if len(value) > 1 or name in _NAME_OF else f"({value[0]},)"
    return str(value)

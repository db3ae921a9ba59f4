"""How a kernel says what is compiled of it."""

import re
from dataclasses import dataclass, field
from typing import Any

from inflight.errors import InflightError
from inflight.kernels.compiler import expression
from inflight.kernels.compiler.data_types import CPP_TYPES, ENUMERATORS


@dataclass(frozen=True)
class Tile:
    """One choice of tile sizes, taken where `when` holds."""

    constants: dict[str, int]  # the kernel's constexprs that nobody but the kernel cares about
    num_warps: int = 4
    num_stages: int = 3
    when: str = "True"  # over arguments and keys
    targets: tuple[int, ...] = ()  # compute capabilities; (): all

    def label(self) -> str:
        sizes = ", ".join(f"{name} = {value}" for name, value in self.constants.items())
        return f"{sizes}, num_warps = {self.num_warps}, num_stages = {self.num_stages}"


@dataclass(frozen=True)
class Argument:
    """One run-time argument: `dtype* % 16` is a pointer to elements of the type variable dtype, a multiple of 16."""

    name: str
    element: str  # Triton's name of a type, or a type variable
    is_pointer: bool
    is_const: bool
    is_aligned: bool  # a multiple of 16: of bytes for a pointer
    comment: str


@dataclass(frozen=True)
class Kernel:
    """A Triton function and the table of what is compiled of it.

    A variant is one value for each type variable and each key, and one tile. The caller of the C++ launcher gives the
    former; the launcher picks the first tile whose condition holds.

    A constexpr PDL is the compiler's: whether the target has programmatic dependent launch. Such a kernel itself waits
    for the one before it (gdc_wait) before it reads what that one wrote.
    """

    function: Any  # what @triton.jit returns
    arguments: dict[str, tuple[str, str]]  # name → (type, comment: shape, unit), in the function's order
    grid: tuple[str, str, str]  # expressions over arguments, keys and the tile's constants
    tiles: list[Tile]
    types: dict[str, tuple[str, ...]] = field(default_factory=dict)  # type variable → Triton's names of types
    keys: dict[str, tuple[Any, ...]] = field(default_factory=dict)  # constexpr that the caller chooses → int, bool, str
    where: str = "True"  # over types and keys: which combinations are compiled
    choices: dict[str, str] = field(default_factory=dict)  # name → expression that gives a caller a tuned argument

    # What the keys' values may be, where `keys` has been restricted to some of them.
    declared_keys: dict[str, tuple[Any, ...]] = field(default_factory=dict)

    def __post_init__(self):
        if not self.declared_keys:
            object.__setattr__(self, "declared_keys", self.keys)
        self._check()

    @property
    def name(self) -> str:
        return self.function.__name__

    @property
    def waits_itself(self) -> bool:
        return "PDL" in self.function.arg_names

    @property
    def title(self) -> str:
        return (self.function.__doc__ or self.name).strip()

    def parsed_arguments(self) -> list[Argument]:
        return [_parse_argument(self, name, *spec) for name, spec in self.arguments.items()]

    def _check(self) -> None:
        parameters = list(self.function.arg_names)
        known = {*self.arguments, *self.keys, *({"PDL"} if self.waits_itself else ())}
        fields = [name.lower() for name in (*self.types, *self.keys, *self.arguments)]
        if twice := {name for name in fields if fields.count(name) > 1}:
            raise InflightError(f"the declaration of {self.name} has two of {', '.join(twice)}, but for upper case")
        for tile in self.tiles:
            missing = [name for name in parameters if name not in known | set(tile.constants)]
            foreign = [name for name in known | set(tile.constants) if name not in parameters]
            if missing or foreign:
                what = f"lacks {', '.join(missing)}" if missing else f"names {', '.join(foreign)}, not a parameter"
                raise InflightError(f"the declaration of {self.name} {what}: tile {tile.label()}")
        order = [name for name in parameters if name in self.arguments]
        if order != list(self.arguments):
            raise InflightError(
                f"the declaration of {self.name} has its arguments in another order: {', '.join(order)}"
            )
        self.parsed_arguments()
        readable = set(self.arguments) | set(self.keys) | set(self.types)
        self._check_names(readable, *(tile.when for tile in self.tiles), *self.choices.values())
        self._check_names({*self.keys, *self.types, "target"}, self.where)
        for tile in self.tiles:
            self._check_names(readable | set(tile.constants), *self.grid)

    def _check_names(self, readable: set[str], *texts: str) -> None:
        for text in texts:
            if unknown := expression.names(text) - readable:
                raise InflightError(f"{self.name}: the expression {text!r} reads {', '.join(sorted(unknown))}")


def _parse_argument(kernel: Kernel, name: str, text: str, comment: str) -> Argument:
    match = re.fullmatch(r"(const )?(\w+)(\*)?( % 16)?", text)
    if match is None:
        raise InflightError(f"{kernel.name}: {name} has the type {text!r}; write [const ]TYPE[*][ % 16]")
    const, element, pointer, aligned = match.groups()
    allowed = {*ENUMERATORS, *CPP_TYPES, *kernel.types} if pointer else CPP_TYPES.keys()
    if element not in allowed:
        raise InflightError(
            f"{kernel.name}: {name} has the unknown type {element!r}; known: {', '.join(sorted(allowed))}"
        )
    return Argument(name, element, bool(pointer), bool(const), bool(aligned), comment)

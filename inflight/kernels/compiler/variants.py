"""The variants that a declaration stands for."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from inflight.errors import InflightError
from inflight.kernels.compiler import expression
from inflight.kernels.compiler.data_types import ENUMERATORS
from inflight.kernels.compiler.declaration import Kernel, Tile
from inflight.kernels.compiler.targets import Target


@dataclass(frozen=True)
class Variant:
    """What one cubin is compiled of."""

    kernel: Kernel
    target: Target
    tile_index: int
    types: dict[str, str]
    keys: dict[str, Any]

    @property
    def tile(self) -> Tile:
        return self.kernel.tiles[self.tile_index]

    @property
    def choices(self) -> dict[str, Any]:
        return {**self.types, **self.keys}

    def label(self) -> str:
        chosen = ", ".join(f"{name} = {value}" for name, value in self.choices.items())
        return f"{self.kernel.name} for {self.target.name} ({chosen}; {self.tile.label()})"

    def signature(self) -> dict[str, str]:
        """Triton's signature: every parameter's type, in the function's order."""
        types = {}
        for argument in self.kernel.parsed_arguments():
            element = self.types.get(argument.element, argument.element)
            types[argument.name] = f"*{element}" if argument.is_pointer else element
        return {name: types.get(name, "constexpr") for name in self.kernel.function.arg_names}

    def constants(self) -> dict[str, Any]:
        own = {"PDL": self.target.has_programmatic_launch} if self.kernel.waits_itself else {}
        return {**self.keys, **self.tile.constants, **own}


def restrict(kernel: Kernel, choices: Mapping[str, tuple[str, ...]]) -> Kernel:
    """The kernel with other values for its types and keys than its table has; choices of other kernels are ignored."""
    types = {name: choices.get(name, values) for name, values in kernel.types.items()}
    for name, values in types.items():
        if unknown := [value for value in values if value not in ENUMERATORS]:
            raise InflightError(f"--set {name}: {unknown[0]!r} is no element type; there are {', '.join(ENUMERATORS)}")
    keys = {
        name: _parse_values(name, choices[name], values) if name in choices else values
        for name, values in kernel.keys.items()
    }
    return replace(kernel, types=types, keys=keys)


def variants(kernel: Kernel, targets: list[Target]) -> Iterator[Variant]:
    """Every variant of the kernel for these targets. Tiles that no argument can lead to are left out."""
    names = [*kernel.types, *kernel.keys]
    for target, *values in itertools.product(targets, *kernel.types.values(), *kernel.keys.values()):
        choices = dict(zip(names, values, strict=True))
        if not expression.evaluate(kernel.where, {**choices, "target": target.capability}):
            continue
        for index, tile in enumerate(kernel.tiles):
            if tile.targets and target.capability not in tile.targets:
                continue
            reached = _known_value(tile.when, choices)
            if reached is not False:
                types = {name: choices[name] for name in kernel.types}
                yield Variant(kernel, target, index, types, {name: choices[name] for name in kernel.keys})
            if reached is True:
                break


def _known_value(condition: str, choices: dict[str, Any]) -> bool | None:
    """The condition's value where the choices alone decide it, else None."""
    try:
        return bool(expression.evaluate(condition, choices))
    except NameError:
        return None


def _parse_values(name: str, texts: tuple[str, ...], declared: tuple[Any, ...]) -> tuple[Any, ...]:
    if isinstance(declared[0], str):
        for text in texts:
            if text not in declared:
                raise InflightError(f"--set {name}: {text!r} is none of {', '.join(declared)}")
        return texts
    parsers: dict[type, Callable[[str], Any]] = {
        bool: lambda text: {"true": True, "false": False, "1": True, "0": False}[text.lower()],
        int: int,
    }
    try:
        return tuple(parsers[type(declared[0])](text) for text in texts)
    except (KeyError, ValueError) as error:
        raise InflightError(f"--set {name}: {','.join(texts)} are not {type(declared[0]).__name__} values") from error

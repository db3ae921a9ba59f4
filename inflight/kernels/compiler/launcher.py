"""Cubins of one kernel → a C++ header and source with a typed launcher."""

import json
from typing import Any

from inflight.errors import InflightError
from inflight.kernels.compiler import expression
from inflight.kernels.compiler.cubin import Cubin
from inflight.kernels.compiler.data_types import CPP_TYPES, ENUMERATORS, enumerator_index
from inflight.kernels.compiler.declaration import Argument, Kernel, Tile
from inflight.kernels.compiler.targets import FIRST_WITH_PROGRAMMATIC_LAUNCH

_HEADER = """\
// Made by inflight.kernels.compile.
#pragma once

#include "kernel_launch.h"

namespace inflight::kernels {{

{enums}{comment}
struct {struct} {{
{fields}
}};

// Launches the first tile that fits. An error says which argument no compiled variant takes.
Status launch(const {struct}& arguments, CUstream stream);

// Loads what launch() would launch with these arguments: a launch within stream capture needs that.
Status load(const {struct}& arguments);
{choices}
}}  // namespace inflight::kernels
"""

_SOURCE = """\
// Made by inflight.kernels.compile.
#include "{name}.h"

#include <algorithm>

namespace inflight::kernels {{
namespace {{

{images}

{values}

const Variant kVariants[] = {{
{variants}
}};

{value_names}const Choice kChoices[] = {{
{choices}
}};

KernelTable& table() {{
  static KernelTable table("{name}", "{symbol}", kChoices, kVariants);
  return table;
}}

struct Selection {{
  int target;
  int tile;
  int64_t values[{num_values}];
}};

[[maybe_unused]] bool is_aligned(const void* pointer) {{ return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }}
[[maybe_unused]] bool is_aligned(int64_t number) {{ return number % 16 == 0; }}

Status select(const {struct}& arguments, Selection& selection) {{
{alignment}  if (Status status = table().find_target(selection.target); !status.ok()) return status;
{values_of_arguments}
{tile_choice}
  return table().no_tile(selection.target, {{{conditions}}});
}}

}}  // namespace

Status launch(const {struct}& arguments, CUstream stream) {{
  Selection selection;
  if (Status status = select(arguments, selection); !status.ok()) return status;
  Grid grid{{}};
  switch (selection.tile) {{
{grids}
  }}
  void* scratch = nullptr;  // the last two parameters of every kernel: memory that these kernels do not use
  void* parameters[] = {{{parameters}, &scratch, &scratch}};
  return table().launch(selection.target, selection.tile, selection.values, grid, {programmatic}, parameters,
                        stream);
}}

Status load(const {struct}& arguments) {{
  Selection selection;
  if (Status status = select(arguments, selection); !status.ok()) return status;
  return table().load(selection.target, selection.tile, selection.values);
}}

}}  // namespace inflight::kernels
"""


def write_header(kernel: Kernel) -> str:
    """The kernel's header: a struct of its arguments, launch() and load()."""
    enums = "".join(
        _enum(kernel, name, values) for name, values in kernel.declared_keys.items() if isinstance(values[0], str)
    )
    choice_fields = [f"  DataType {name};" for name in kernel.types]
    choice_fields += [f"  {_key_type(kernel, name)} {name.lower()};" for name in kernel.keys]
    fields = choice_fields + [_field(argument, kernel) for argument in kernel.parsed_arguments()]
    if kernel.waits_itself:
        fields.append("  bool programmatic_launch = false;  // may start while the kernel before it in the stream ends")
    choices = "".join(_choice_function(kernel, name, text) for name, text in kernel.choices.items())
    comment = "\n".join(f"// {line.strip()}".rstrip() for line in kernel.title.splitlines())
    return _HEADER.format(
        enums=enums, comment=comment, struct=_struct(kernel), fields="\n".join(fields), choices=choices
    )


def write_source(kernel: Kernel, cubins: list[Cubin]) -> str:
    """The kernel's source: every cubin, and which of them is launched for which arguments."""
    symbols = {cubin.symbol for cubin in cubins}
    if len(symbols) != 1:
        raise InflightError(f"{kernel.name} has several symbols: {', '.join(sorted(symbols))}")
    arguments = kernel.parsed_arguments()
    return _SOURCE.format(
        name=kernel.name,
        symbol=symbols.pop(),
        struct=_struct(kernel),
        images="\n".join(f"alignas(64) const char kImage{i}[] =\n{_literal(c.image)};" for i, c in enumerate(cubins)),
        values="\n".join(f"const int64_t kValues{i}[] = {{{_values(c)}}};" for i, c in enumerate(cubins)),
        variants="\n".join(
            f"    {{{c.variant.target.capability}, {c.variant.tile_index}, kValues{i}, kImage{i}, {c.shared_bytes}, "
            f"{c.threads}}},"
            for i, c in enumerate(cubins)
        ),
        value_names="".join(_value_names(kernel, name) for name in [*kernel.types, *kernel.keys]),
        choices="\n".join(f'    {{"{name}", {_names_of(kernel, name)}}},' for name in [*kernel.types, *kernel.keys])
        or "    {nullptr, {}},",
        num_values=max(1, len(kernel.types) + len(kernel.keys)),
        alignment="".join(_alignment_check(argument) for argument in arguments if argument.is_aligned),
        values_of_arguments="\n".join(
            f"  selection.values[{i}] = static_cast<int64_t>(arguments.{name.lower()});"
            for i, name in enumerate([*kernel.types, *kernel.keys])
        )
        or "  selection.values[0] = 0;",
        tile_choice="\n".join(_tile_choice(kernel, index, tile) for index, tile in enumerate(kernel.tiles)),
        conditions=", ".join(json.dumps(tile.when) for tile in kernel.tiles),
        grids="\n".join(_grid(kernel, index, tile) for index, tile in enumerate(kernel.tiles)),
        programmatic=f"arguments.programmatic_launch && selection.target >= {FIRST_WITH_PROGRAMMATIC_LAUNCH}"
        if kernel.waits_itself
        else "false",
        parameters=", ".join(f"const_cast<void*>(static_cast<const void*>(&arguments.{a.name}))" for a in arguments),
    )


def _struct(kernel: Kernel) -> str:
    return _camel(kernel.name)


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.lower().split("_"))


def _enum(kernel: Kernel, name: str, values: tuple[str, ...]) -> str:
    enumerators = ", ".join(f"k{_camel(value)}" for value in values)
    return f"enum class {_struct(kernel)}{_camel(name)} {{ {enumerators} }};\n\n"


def _key_type(kernel: Kernel, name: str) -> str:
    value = kernel.declared_keys[name][0]
    if isinstance(value, str):
        return f"{_struct(kernel)}{_camel(name)}"
    return "bool" if isinstance(value, bool) else "int32_t"


def _field(argument: Argument, kernel: Kernel) -> str:
    element = (
        "void" if argument.element in kernel.types or argument.element not in CPP_TYPES else CPP_TYPES[argument.element]
    )
    const = "const " if argument.is_const else ""
    pointer = "*" if argument.is_pointer else ""
    return f"  {const}{element}{pointer} {argument.name};  // {argument.comment}"


def _choice_function(kernel: Kernel, name: str, text: str) -> str:
    body = expression.to_cpp(text, lambda read: f"arguments.{read.lower()}", _string_constant(kernel))
    return (
        f"\n// A good `{name}` for these arguments, as measured.\n"
        f"inline int32_t choose_{name}(const {_struct(kernel)}& arguments) {{ return static_cast<int32_t>({body}); }}\n"
    )


def _string_constant(kernel: Kernel):
    def spell(value: Any) -> str:
        if value in ENUMERATORS:
            return f"DataType::{ENUMERATORS[value]}"
        for name, values in kernel.declared_keys.items():
            if value in values:
                return f"{_struct(kernel)}{_camel(name)}::k{_camel(value)}"
        raise InflightError(f"{kernel.name}: {value!r} is no value of any key")

    return spell


def _literal(image: bytes) -> str:
    """A string literal, which compilers read far faster than a list of numbers."""
    lines = []
    for start in range(0, len(image), 64):
        lines.append('    "' + "".join(f"\\{byte:03o}" for byte in image[start : start + 64]) + '"')
    return "\n".join(lines)


def _values(cubin: Cubin) -> str:
    kernel, choices = cubin.variant.kernel, cubin.variant.choices
    values = [_integer(kernel, name, choices[name]) for name in [*kernel.types, *kernel.keys]]
    return ", ".join(map(str, values)) or "0"


def _integer(kernel: Kernel, name: str, value: Any) -> int:
    """How a type or a key's value stands in C++."""
    if name in kernel.types:
        return enumerator_index(value)
    return list(kernel.declared_keys[name]).index(value) if isinstance(value, str) else int(value)


def _value_names(kernel: Kernel, name: str) -> str:
    if name in kernel.types:
        names = list(ENUMERATORS)
    elif isinstance(kernel.declared_keys[name][0], str):
        names = list(kernel.declared_keys[name])
    elif isinstance(kernel.declared_keys[name][0], bool):
        names = ["false", "true"]
    else:
        return ""
    return f"const char* const k{_camel(name)}Names[] = {{{', '.join(map(json.dumps, names))}}};\n"


def _names_of(kernel: Kernel, name: str) -> str:
    return f"k{_camel(name)}Names" if _value_names(kernel, name) else "{}"


def _alignment_check(argument: Argument) -> str:
    value = f"arguments.{argument.name}"
    number = f"reinterpret_cast<uintptr_t>({value})" if argument.is_pointer else f"static_cast<uint64_t>({value})"
    return (
        f'  if (!is_aligned({value})) return table().not_aligned("{argument.name}", '
        f"{_bool(argument.is_pointer)}, {number});\n"
    )


def _tile_choice(kernel: Kernel, index: int, tile: Tile) -> str:
    condition = expression.to_cpp(tile.when, lambda name: f"arguments.{name.lower()}", _string_constant(kernel))
    if tile.targets:
        targets = " || ".join(f"selection.target == {target}" for target in tile.targets)
        condition = f"({targets}) && {condition}"
    return f"  if ({condition}) {{\n    selection.tile = {index};\n    return {{}};\n  }}"


def _grid(kernel: Kernel, index: int, tile: Tile) -> str:
    def spell(name: str) -> str:
        return str(tile.constants[name]) if name in tile.constants else f"int64_t{{arguments.{name.lower()}}}"

    sizes = ", ".join(f"int64_t{{{expression.to_cpp(text, spell, _string_constant(kernel))}}}" for text in kernel.grid)
    return f"    case {index}: grid = {{{sizes}}}; break;"


def _bool(value: bool) -> str:
    return "true" if value else "false"

"""Damaged copies of files, the same for the same seed."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ODD_VALUES = (
    None,
    True,
    -1,
    0,
    1.5,
    7,
    2**31 - 1,
    2**32 - 1,
    2**40,
    2**64,
    10**400,
    float("nan"),
    float("inf"),
    1e-320,
    "",
    "x",
    "7",
    "######",
    "é\x00\ud800".encode("utf-8", "replace").decode(),
    [],
    [1],
    ["x", None],
    [[0]],
    {},
    {"content": "x"},
    {"x": {"x": 1}},
)


def mutant_bytes(content: bytes, random: np.random.Generator, within: int | None = None) -> bytes:
    """Flips, replaces, drops, repeats or inserts a few bytes among the first `within`, or cuts the rest off."""
    data = bytearray(content)
    for _ in range(random.integers(1, 4)):
        end = min(len(data), within or len(data))
        if end == 0:
            return bytes(data)
        place = int(random.integers(end))
        length = int(random.integers(1, 9))
        match random.integers(7):
            case 0:
                data[place] ^= 1 << random.integers(8)
            case 1:
                data[place] = random.integers(256)
            case 2:
                data[place : place + length] = b"\xff" * length
            case 3:
                del data[place : place + length]
            case 4:
                data[place:place] = data[place : place + length]
            case 5:
                data[place:place] = random.bytes(length)
            case 6:
                del data[place:]
    return bytes(data)


def mutant_json(content: bytes, random: np.random.Generator) -> bytes:
    """Replaces, drops, adds or moves a few values anywhere in a JSON document; now and then damages its text."""
    if random.integers(8) == 0:
        return mutant_bytes(content, random)
    document = copy.deepcopy(json.loads(content))
    for _ in range(random.integers(1, 3)):
        places = list(_places(document))
        if not places:
            break
        container, key = places[random.integers(len(places))]
        match random.integers(6):
            case 0:
                del container[key]
            case 1:
                other, other_key = places[random.integers(len(places))]
                container[key] = copy.deepcopy(other[other_key])
            case 2 if isinstance(container, dict):
                container[f"{key}x"] = container.pop(key)
            case _:
                container[key] = copy.deepcopy(ODD_VALUES[random.integers(len(ODD_VALUES))])
    return json.dumps(document).encode()


def _places(document: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """Every container with every key or index; of long ones a few, so that no vocabulary outweighs the rest."""
    keys = list(document) if isinstance(document, dict) else range(len(document)) if isinstance(document, list) else ()
    for key in list(keys)[:: max(1, len(keys) // 40)]:
        yield document, key
        yield from _places(document[key], depth + 1)


def mutate(path: Path, random: np.random.Generator, within: int | None = None) -> None:
    """Damages a file in its place."""
    content = path.read_bytes()
    if path.suffix == ".json":
        path.write_bytes(mutant_json(content, random))
    else:
        path.write_bytes(mutant_bytes(content, random, within))

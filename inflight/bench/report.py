"""What every benchmark reports beside its figures: the machine, the commit, the options."""

import argparse
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import inflight
from inflight._native import available_cpus

_INSTRUCTION_SETS = ("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_bf16")


def write_json(path: Path, options: argparse.Namespace, results: dict) -> None:
    """Writes one benchmark run with all that is needed to repeat it; where it is written is not."""
    report = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "version": inflight.__version__,
        "commit": commit(),
        "machine": machine(),
        "options": {name: value for name, value in vars(options).items() if name not in ("run", "json")},
        **results,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2, default=str) + "\n", encoding="utf-8")


def print_table(header: Sequence[str], rows: Sequence[Sequence]) -> None:
    """Right-aligned columns; floats with one decimal."""
    cells = [[f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def machine() -> dict:
    """The CPU as Linux describes it, and how much of it this process may use."""
    processors = [_fields(block) for block in Path("/proc/cpuinfo").read_text(encoding="utf-8").strip().split("\n\n")]
    flags = processors[0].get("flags", "").split()
    cores = {(fields.get("physical id"), fields.get("core id", index)) for index, fields in enumerate(processors)}
    return {
        "cpu": processors[0].get("model name", platform.processor()),
        "cores": len(cores),
        "hardware_threads": len(processors),
        "usable_threads": available_cpus(),
        "instruction_sets": [flag for flag in _INSTRUCTION_SETS if flag in flags],
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _fields(block: str) -> dict[str, str]:
    lines = [line.split(":", 1) for line in block.splitlines() if ":" in line]
    return {name.strip(): value.strip() for name, value in lines}


def commit() -> str | None:
    """The commit of the source tree, "-dirty" if it is changed; None for an installed package."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None

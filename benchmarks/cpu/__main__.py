#!/usr/bin/env python3
"""The CPU engine beside llama.cpp and OpenVINO GenAI, and beside what this machine can do at most.

python benchmarks/cpu --ceilings PROGRAM --peers PYTHON [--json FILE]: measures the machine's ceilings with
machine_ceilings, then the rows of works.py, each engine in a process of its own and in turn in every run, then how
our cost grows with batch, context and threads. Needs a machine with nothing else to do: it says how busy it was.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from measured_models import prepare
from sweep import sweep
from table import OURS, SCRIPTS, Setup, measure_rows
from works import SMOLLM2, WORKS

from inflight.bench.report import write_json
from inflight.errors import InflightError

_IDLE_LOAD = 0.5  # processes that compute or wait to, over the last minute


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks/cpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ceilings", type=Path, required=True, help="machine_ceilings, compiled")
    parser.add_argument("--peers", type=Path, help="Python of the peers' environment; without it, only ours")
    parser.add_argument("--models", default=",".join(WORKS), help="comma-separated (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of each engine (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=9, help="runs of a row, after a warm-up (default %(default)s)")
    parser.add_argument("--sweep-repeats", type=int, default=3, help="the same of a curve's point; 0: no curves")
    parser.add_argument("--seed", type=int, default=0, help="of prompts and lengths (default %(default)s)")
    parser.add_argument("--json", type=Path, help="write all figures here")
    options = parser.parse_args()
    try:
        return run(options)
    except InflightError as error:
        print(f"benchmarks/cpu: {error}", file=sys.stderr)
        return 1


def run(options: argparse.Namespace) -> int:
    names = options.models.split(",")
    if unknown := set(names) - set(WORKS):
        raise InflightError(f"--models has {', '.join(sorted(unknown))}; it knows {', '.join(WORKS)}")
    if options.threads < 1 or options.repeats < 1 or options.sweep_repeats < 0:
        raise InflightError("--threads and --repeats must be at least 1, --sweep-repeats at least 0")
    busy = os.getloadavg()[0]
    if busy > _IDLE_LOAD:
        print(
            f"benchmarks/cpu: the load average is {busy:.1f}: others compute here, the figures will be wrong",
            file=sys.stderr,
        )
    ceilings = {threads: measure_ceilings(options.ceilings, threads) for threads in sorted({1, options.threads})}
    ceilings_now = partial(run_ceilings, options.ceilings, options.threads, "--now")
    log = Path(tempfile.gettempdir()) / f"benchmark-cpu-{os.getpid()}.log"
    setup = Setup(choose_pythons(options.peers), options.threads, options.repeats, options.seed, log)
    rows, points, versions = [], [], {}
    with tempfile.TemporaryDirectory(prefix="benchmark-cpu-") as scratch:
        for index, name in enumerate(names):
            model = prepare(name, Path(scratch) / str(index))
            new_rows, versions = measure_rows(WORKS[name], model, ceilings_now, setup, print_row)
            rows += new_rows
            if name == SMOLLM2 and options.sweep_repeats:
                curve_setup = Setup(setup.pythons, setup.threads, options.sweep_repeats, setup.seed, log)
                points = sweep(model, name, ceilings, curve_setup, print_point)
    log.unlink(missing_ok=True)
    if options.json:
        figures = {
            "load_average_before": busy,
            "ceilings": ceilings,
            "versions": versions,
            "rows": rows,
            "curves": points,
        }
        write_json(options.json, options, figures)
    return 0


def choose_pythons(peers: Path | None) -> dict[str, Path]:
    return {OURS: Path(sys.executable)} | ({name: peers for name in SCRIPTS if name != OURS} if peers else {})


def measure_ceilings(program: Path, threads: int) -> dict:
    """What machine_ceilings prints; it is printed here as well."""
    ceilings = run_ceilings(program, threads)
    rates = ", ".join(f"{name} {rate:,.0f}" for name, rate in ceilings["gemm_gop_per_s"].items() if rate)
    print(
        f"{threads} thread{'s' if threads > 1 else ''}, {ceilings['isa']}: read {ceilings['read_gb_per_s']:.1f} GB/s, "
        f"GEMM in Gop/s: {rates}",
        flush=True,
    )
    return ceilings


def run_ceilings(program: Path, threads: int, *arguments: str) -> dict:
    command = [program.absolute(), str(threads), *arguments]
    try:
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    except (OSError, subprocess.CalledProcessError) as error:
        raise InflightError(f"{program} does not run: {error}") from error


def print_row(row: dict) -> None:
    rates = ", ".join(f"{name} {row[name]:.1f}" for name in SCRIPTS if row[name] is not None)
    ratio = "" if row["ratio"] is None else f"; {row['ratio']:.2f} x the better peer"
    verdict = {True: "met", False: "not met", None: "not known"}[row["met"]]
    print(
        f"{row['work']}: tok/s {rates}{ratio}; {100 * row['roofline_share']:.0f} % of the roofline ({row['ceiling']}); "
        f"target {row['target_of'].replace('_', ' ')} {row['target']}: {verdict}",
        flush=True,
    )


def print_point(point: dict) -> None:
    print(
        f"{point['against']} {point['value']}, threads {point['threads']}: "
        f"{point['generation_tokens_per_s']:.1f} tok/s, "
        f"step {point['step_ms']:.2f} ms (roofline {point['roofline_step_ms']:.2f}), "
        f"context {point['context_tokens_per_s']:.1f} tok/s",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())

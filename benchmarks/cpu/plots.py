#!/usr/bin/env python3
"""Draws what benchmarks/cpu has written: plots.py cpu.json DIRECTORY. Needs matplotlib, and nothing of ours.

cpu_batch.png     throughput and step time against the batch, with the roofline and the peers' rows
cpu_context.png   step time and prompt throughput against the context of one sequence, with the roofline
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

_COLORS = {1: "tab:blue", 2: "tab:orange"}
_PEERS = {"llama_cpp": ("llama.cpp", "s"), "openvino": ("OpenVINO GenAI", "^")}
_FIGURE = {"figsize": (11, 4.5), "layout": "constrained"}


def main() -> int:
    report, directory = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2])
    if not report["curves"]:
        print(f"plots.py: {sys.argv[1]} has no curves: run benchmarks/cpu with --sweep-repeats", file=sys.stderr)
        return 1
    against_batch(report).savefig(directory / "cpu_batch.png", dpi=120)
    against_context(report).savefig(directory / "cpu_context.png", dpi=120)
    return 0


def against_batch(report: dict):
    figure, (throughput, step) = pyplot.subplots(1, 2, **_FIGURE)
    _draw(throughput, report, "batch", "generation_tokens_per_s")
    _draw_peers(throughput, report)
    _label(throughput, "sequences", "generated tokens/s")
    _draw(step, report, "batch", "step_ms")
    _label(step, "sequences", "ms a step")
    figure.suptitle(_title(report, "128 tokens in, 64 out"))
    return figure


def against_context(report: dict):
    figure, (step, throughput) = pyplot.subplots(1, 2, **_FIGURE)
    _draw(step, report, "context", "step_ms")
    _label(step, "tokens of context", "ms a generated token")
    _draw(throughput, report, "context", "context_tokens_per_s")
    _label(throughput, "tokens of context", "prompt tokens/s")
    figure.suptitle(_title(report, "one sequence"))
    return figure


def _draw(axes, report: dict, against: str, figure: str) -> None:
    """Ours and the roofline, a line for each number of threads."""
    for threads in sorted({point["threads"] for point in report["curves"]}):
        points = [p for p in report["curves"] if p["against"] == against and p["threads"] == threads]
        values, color = [point["value"] for point in points], _COLORS.get(threads, "tab:green")
        name = f"{threads} thread{'s' if threads > 1 else ''}"
        axes.plot(values, [point[figure] for point in points], "o-", color=color, label=f"Inflight, {name}")
        bounds = [point[f"roofline_{figure}"] for point in points]
        axes.plot(values, bounds, "--", color=color, label=f"roofline, {name}")


def _draw_peers(axes, report: dict) -> None:
    models = {point["model"] for point in report["curves"]}
    rows = [row for row in report["rows"] if row["model"] in models and row["phase"] == "generation"]
    for key, (name, marker) in _PEERS.items():
        points = [(row["batch"], row[key]) for row in rows if row[key] is not None]
        if points:
            axes.plot(*zip(*points, strict=True), marker, color="black", label=f"{name}, {_threads(report)} threads")


def _label(axes, x: str, y: str) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(True, which="both", alpha=0.2)
    axes.legend(fontsize="small")


def _title(report: dict, what: str) -> str:
    model = report["curves"][0]["model"]
    return f"{model}, {what}; {report['machine']['cpu']}, {(report['commit'] or report['version'])[:12]}"


def _threads(report: dict) -> int:
    return report["options"]["threads"]


if __name__ == "__main__":
    sys.exit(main())

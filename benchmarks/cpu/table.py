"""Measures the rows: ours and the peers in turn, in every run the same requests, and the roofline beside them."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, mode

from measured_models import Model
from roofline import ModelCost, tokens_per_second_bound
from worker import Worker
from works import Work, requests

from inflight.bench.timeline import Timeline

OURS = "ours"
SCRIPTS = {OURS: "inflight_worker.py", "llama_cpp": "llama_cpp_worker.py", "openvino": "openvino_worker.py"}


@dataclass(frozen=True)
class Setup:
    """pythons: the interpreter of each engine that takes part. repeats: runs of a row, after one to warm up."""

    pythons: dict[str, Path]
    threads: int
    repeats: int
    seed: int
    log: Path


def measure_rows(
    works: list[Work], model: Model, ceilings_now: Callable[[], dict], setup: Setup, report
) -> tuple[list[dict], dict]:
    """Rows of one model, and what each engine says of itself; report(row) is called as rows come.

    ceilings_now: measures the machine's ceilings, briefly. A virtual machine's neighbors change them within seconds, so
    that each of our runs is compared with those just before and just after it.
    """
    cost = ModelCost.of_engine(model.engine)
    rows = []
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(
                Worker(python, SCRIPTS[name], [model.engine if name == OURS else model.gguf, setup.threads], setup.log)
            )
            for name, python in setup.pythons.items()
        }
        for work in works:
            runs, bounds = measure_runs(
                work,
                model.vocabulary,
                workers,
                setup,
                lambda work=work: tokens_per_second_bound(cost, ceilings_now(), work),
            )
            rows.append(make_row(work, runs, bounds))
            report(rows[-1])
        return rows, {name: worker.description for name, worker in workers.items()}


def measure_runs(
    work: Work, vocabulary: int, workers: dict[str, Worker], setup: Setup, bound_now: Callable[[], tuple[float, str]]
) -> tuple[dict[str, list[float]], list[tuple[float, str]]]:
    """Tokens a second of each engine in each run, and the bound of ours. Each run begins with another engine."""
    runs, bounds = {name: [] for name in workers}, []
    names = list(workers)
    for run in range(setup.repeats + 1):
        prompts, outputs = requests(work, vocabulary, setup.seed, run)
        first = run % len(names)
        for name in names[first:] + names[:first]:
            before = bound_now()  # whoever runs, so that all come after the same
            rate = tokens_per_second(work, prompts, workers[name].generate(prompts, outputs))
            if run > 0:
                runs[name].append(rate)
                if name == OURS:
                    after = bound_now()
                    bounds.append((mean([before[0], after[0]]), after[1]))
    return runs, bounds


def tokens_per_second(work: Work, prompts: list[list[int]], timeline: Timeline) -> float:
    if work.phase == "context":
        return sum(map(len, prompts)) / timeline.total_seconds
    return timeline.generation_rate()


def make_row(work: Work, runs: dict[str, list[float]], bounds: list[tuple[float, str]]) -> dict:
    """bounds: for each of our runs, tokens a second at the roofline, and the ceiling that sets it."""
    medians = {name: median(rates) for name, rates in runs.items()}
    peers = [rate for name, rate in medians.items() if name != OURS]
    ratio = medians[OURS] / max(peers) if peers else None
    share = median(rate / bound for rate, (bound, _) in zip(runs[OURS], bounds, strict=True))
    reached = ratio if work.target_of == "ratio" else share
    return {
        "work": str(work),
        **{name: medians.get(name) for name in SCRIPTS},
        "ratio": ratio,
        "target": work.target,
        "target_of": work.target_of,
        "met": None if reached is None else reached >= work.target,
        "roofline_share": share,
        "roofline": median(bound for bound, _ in bounds),
        "ceiling": mode(ceiling for _, ceiling in bounds),
        "model": work.model,
        "phase": work.phase,
        "batch": work.batch,
        "runs": runs,
        "roofline_runs": [bound for bound, _ in bounds],
    }

"""How our cost grows: with the batch, and with the context of one sequence; each with one thread and with all."""

from statistics import median

from measured_models import Model
from roofline import ModelCost, context_bound, generation_bound
from table import OURS, SCRIPTS, Setup
from worker import Worker
from works import Work, requests

BATCHES = (1, 2, 4, 8, 16, 32, 64)
CONTEXTS = (128, 256, 512, 1024, 2048, 4096, 8192)
INPUT, OUTPUT = 128, 64  # of a request in a batch
LAST_TOKENS = 32  # of a context, those that are generated


def sweep(model: Model, name: str, ceilings: dict[int, dict], setup: Setup, report) -> list[dict]:
    """One point for each number of threads in `ceilings`, and each batch and context that the engine serves."""
    cost = ModelCost.of_engine(model.engine)
    works = [("batch", batch, Work(name, "generation", batch, INPUT, OUTPUT, target=0)) for batch in BATCHES]
    works += [
        ("context", context, Work(name, "generation", 1, context - LAST_TOKENS, LAST_TOKENS, target=0))
        for context in CONTEXTS
    ]
    points = []
    for threads, ceiling in ceilings.items():
        with Worker(setup.pythons[OURS], SCRIPTS[OURS], [model.engine, threads], setup.log) as worker:
            for against, value, work in works:
                point = {"model": name, "against": against, "value": value, "threads": threads}
                point |= _measure(work, model.vocabulary, worker, setup)
                point |= _bounds(cost, ceiling, work)
                points.append(point)
                report(point)
    return points


def _measure(work: Work, vocabulary: int, worker: Worker, setup: Setup) -> dict:
    generation, context = [], []
    for run in range(setup.repeats + 1):
        prompts, _ = requests(work, vocabulary, setup.seed, run)
        prompts = [prompt[: work.input] for prompt in prompts]
        timeline = worker.generate(prompts, [work.output] * len(prompts))
        if run > 0:
            generation.append(timeline.generation_rate())
            first_tokens = max(responses[0][0] for responses in timeline.arrivals)
            context.append(sum(map(len, prompts)) / first_tokens)
    rate = median(generation)
    return {
        "generation_tokens_per_s": rate,
        "step_ms": 1000 * work.batch / rate,
        "context_tokens_per_s": median(context),
    }


def _bounds(cost: ModelCost, ceilings: dict, work: Work) -> dict:
    step = generation_bound(cost, ceilings, work.batch, work.input + work.output / 2)
    context = context_bound(cost, ceilings, work.batch, work.input)
    return {
        "roofline_generation_tokens_per_s": work.batch / step.seconds,
        "roofline_step_ms": 1000 * step.seconds,
        "roofline_context_tokens_per_s": work.batch * work.input / context.seconds,
    }

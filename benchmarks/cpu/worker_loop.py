"""The child's side of a worker: JSON lines in, JSON lines out. Runs in any environment: it needs nothing but Python.

    → {"prompts": [[1, 2, 3], …], "outputs": [64, …]}     token ids, and how many tokens to generate after each
    ← {"arrivals": [[[0.12, 1], …], …]}                   for each prompt: seconds since the start, tokens that came

The first line out is {"ready": {…}}, what the engine says of itself. An exception ends the worker, its last line being
{"error": "…"}. All prompts start together; no end id ends an answer.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence

Arrivals = list[list[tuple[float, int]]]
Generate = Callable[[Sequence[Sequence[int]], Sequence[int]], Arrivals]


def serve(load: Callable[[], tuple[Generate, dict]]) -> None:
    """Loads an engine, then answers until stdin ends. What the engine itself prints goes to stderr."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        try:
            generate, description = load()
            _answer(answers, {"ready": description})
            for line in sys.stdin:
                request = json.loads(line)
                _answer(answers, {"arrivals": generate(request["prompts"], request["outputs"])})
        except Exception as error:
            _answer(answers, {"error": f"{type(error).__name__}: {error}"})
            raise


def _answer(answers, answer: dict) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()

"""What is measured: the rows of the table, and the requests of each of their runs."""

import random
from dataclasses import dataclass

LENGTH_SPREAD = 0.125  # prompts and answers are up to this much shorter or longer than the row says


@dataclass(frozen=True)
class Work:
    """One row. phase: what its figure counts, tokens a second of "generation" or of "context".

    Generation counts from the last first token to the first last one, while all sequences generate; context counts
    prompt tokens until all first tokens are there. target: of `target_of`, either "ratio", ours over the better peer,
    or "roofline_share".
    """

    model: str
    phase: str
    batch: int
    input: int
    output: int
    target: float
    target_of: str = "ratio"

    def __str__(self) -> str:
        sequences = f"{self.batch} sequence{'s' if self.batch > 1 else ''}"
        if self.phase == "context":
            return f"{self.model}: context, {self.batch} x {self.input:,} tokens"
        return f"{self.model}: generation, {sequences} ({self.input} in, {self.output} out)"


SMOLLM2, LLAMA_INT8, LLAMA_INT4 = "SmolLM2-135M Q4_1", "Llama 1.1B int8", "Llama 1.1B int4"

SMOLLM2_WORKS = [
    Work(SMOLLM2, "generation", 1, 128, 64, target=2.0),
    Work(SMOLLM2, "generation", 16, 128, 64, target=2.0),
    Work(SMOLLM2, "generation", 32, 128, 64, target=2.0),
    Work(SMOLLM2, "context", 1, 1024, 1, target=1.3),
    Work(SMOLLM2, "context", 32, 128, 1, target=1.4),
]


def llama_works(model: str) -> list[Work]:
    return [
        Work(model, "generation", 1, 64, 32, target=0.7, target_of="roofline_share"),
        Work(model, "generation", 16, 64, 32, target=1.5),
        Work(model, "context", 1, 512, 1, target=0.6, target_of="roofline_share"),
    ]


WORKS = {SMOLLM2: SMOLLM2_WORKS, LLAMA_INT8: llama_works(LLAMA_INT8), LLAMA_INT4: llama_works(LLAMA_INT4)}


def requests(work: Work, vocabulary: int, seed: int, run: int) -> tuple[list[list[int]], list[int]]:
    """Random prompts, and how many tokens to generate after each: the same for every engine in this run."""
    generator = random.Random(f"{seed} {work} {run}")

    def varied(length: int) -> int:
        spread = int(length * LENGTH_SPREAD)
        return length + generator.randint(-spread, spread)

    prompts = [[generator.randrange(vocabulary) for _ in range(varied(work.input))] for _ in range(work.batch)]
    return prompts, [varied(work.output) for _ in range(work.batch)]

"""Greedy decoding through inflight.LLM."""

from pathlib import Path

from inflight import LLM, SamplingParams


def greedy_tokens(
    engine: Path, prompts: list[list[int]], max_tokens: int, together: bool = True, end_ids: tuple[int, ...] = ()
) -> list[list[int]]:
    """The tokens that follow each prompt: max_tokens, or fewer where one of end_ids comes (the model's own do not end).

    together: all requests are in flight at once; else each has the engine to itself.
    """
    sampling = SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True, stop_token_ids=end_ids)
    with LLM(engine, progress=False) as llm:
        batches = [prompts] if together else [[prompt] for prompt in prompts]
        outputs = [output for batch in batches for output in llm.generate(batch, sampling)]
    return [output.outputs[0].token_ids for output in outputs]

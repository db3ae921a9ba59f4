"""Generation through inflight._native.BatchManager, the code that Triton runs, one level below inflight.LLM."""

import threading
from pathlib import Path

TIMEOUT = 120.0  # seconds for all requests together


def generate(engine: Path, prompts: list[list[int]], max_new_tokens: int, together: bool = True, **sampling):
    """Greedy unless `sampling` says otherwise; ignores end ids, so that each sequence has max_new_tokens tokens.

    together: all requests are in flight at once; else each has the engine to itself.
    Returns the generated tokens of each prompt.
    """
    from inflight._native import BatchManager

    with BatchManager(engine) as manager:
        pending = []
        for prompt in prompts:
            pending.append(_submit(manager, prompt, max_new_tokens, sampling))
            if not together:
                pending[-1].wait()
        return [request.wait() for request in pending]


class _Pending:
    def __init__(self):
        self._done = threading.Event()
        self._response = None

    def finish(self, _id, response):
        self._response = response
        self._done.set()

    def wait(self) -> list[int]:
        assert self._done.wait(TIMEOUT), f"no response within {TIMEOUT:g} s"
        if self._response.error:
            raise self._response.error
        return list(self._response.tokens)


def _submit(manager, prompt, max_new_tokens, sampling) -> _Pending:
    pending = _Pending()
    manager.submit(prompt, max_new_tokens, pending.finish, **{"end_ids": [-1], **sampling})
    return pending

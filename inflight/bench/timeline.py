"""Runs requests together and keeps when their tokens arrived."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from inflight.errors import InflightError

_TIMEOUT_SECONDS = 600.0  # of one run


@dataclass
class Timeline:
    """For each request, in the order in which they were given: (seconds since the start, tokens of this response)."""

    arrivals: list[list[tuple[float, int]]] = field(default_factory=list)

    @property
    def total_seconds(self) -> float:
        return max(responses[-1][0] for responses in self.arrivals)

    @property
    def num_tokens(self) -> list[int]:
        """Of each request."""
        return [sum(count for _, count in responses) for responses in self.arrivals]

    def generation_rate(self) -> float:
        """Tokens per second while every request generates."""
        begin = max(responses[0][0] for responses in self.arrivals)
        end = min(responses[-1][0] for responses in self.arrivals)
        if end <= begin:
            raise InflightError("the requests never generated all at once: raise --output or lower --batch")
        tokens = sum(count for responses in self.arrivals for seconds, count in responses if begin < seconds <= end)
        return tokens / (end - begin)


def run_together(manager, requests: Sequence[Mapping[str, Any]]) -> Timeline:
    """Submits all requests at once and waits for their ends.

    requests: arguments of inflight._native.BatchManager.submit, but the callback. Raises InflightError for the first
    request that fails, and when they take more than ten minutes.
    """
    timeline = Timeline([[] for _ in requests])
    errors: list[Exception] = []
    finished = threading.Semaphore(0)

    def deliver(arrivals: list, response) -> None:
        arrivals.append((time.perf_counter() - start, len(response.tokens)))
        if response.error is not None:
            errors.append(response.error)
        if response.is_final:
            finished.release()

    start = time.perf_counter()
    for request, arrivals in zip(requests, timeline.arrivals, strict=True):
        manager.submit(callback=lambda _, response, arrivals=arrivals: deliver(arrivals, response), **request)
    deadline = start + _TIMEOUT_SECONDS
    for _ in requests:
        if not finished.acquire(timeout=max(deadline - time.perf_counter(), 0.0)):
            raise InflightError(f"{len(requests)} requests did not finish within {_TIMEOUT_SECONDS:.0f} s")
    if errors:
        raise errors[0]
    return timeline

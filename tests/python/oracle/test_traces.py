"""The oracle: whatever the scheduler does, each request's tokens equal those it gets alone.

INFLIGHT_ORACLE_TRACES=N runs N random traces in place of the same few thousand every time. What such a run finds
belongs into traces/: the JSON that its failure prints.
"""

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, note, settings
from trace_strategies import EVERYTHING, crowds, traces

KEPT = sorted((Path(__file__).parent / "traces").glob("*.json"))
NUM_TRACES = int(os.environ.get("INFLIGHT_ORACLE_TRACES", 3000))

# Features that meet in a trace, and their share of all traces.
MIXES = {
    "scheduling": (("priorities", "cancels", "faults", "stops", "queues"), 0.15),
    "pausing": (("max_utilization", "priorities", "cancels", "faults"), 0.15),
    "reuse": (("reuse", "host", "cancels", "faults", "priorities"), 0.2),
    "windows": (("windows", "reuse", "host", "sequences", "cancels"), 0.1),
    "sequences": (("sequences", "reuse", "cancels", "faults", "logits"), 0.1),
    "beams": (("beams", "sequences", "reuse", "cancels", "faults"), 0.1),
    "drafts": (("drafts", "lookup", "reuse", "cancels", "logits"), 0.1),
    "guides": (("guides", "sequences", "reuse", "cancels", "lookup"), 0.05),
    "everything": (EVERYTHING, 0.05),
}

oracle_settings = settings(
    deadline=None,
    database=None,
    derandomize="INFLIGHT_ORACLE_TRACES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_a_trace_that_once_failed(replayer, path):
    assert replayer.faults(json.loads(path.read_text())) == []


@pytest.mark.parametrize("mix", MIXES)
def test_tokens_equal_those_of_a_request_alone(replayer, mix):
    features, share = MIXES[mix]
    search(replayer, traces(*features), share)


def test_no_request_waits_for_ever_behind_later_ones(replayer):
    search(replayer, crowds(), 0.01)


def search(replayer, strategy, share: float) -> None:
    @settings(oracle_settings, max_examples=max(1, round(NUM_TRACES * share)))
    @given(trace=strategy)
    def each(trace):
        faults = replayer.faults(trace)
        if faults:
            note(json.dumps(trace))
        assert faults == []

    each()

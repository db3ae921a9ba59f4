"""inflight._native.BatchManager: what the binding adds to the C++ class."""

import subprocess
import sys
import threading

import numpy as np
import pytest
from native_requests import Collector, run

from inflight import _native
from inflight.errors import InflightError

NO_END = {"end_ids": [-1]}


def test_without_streaming_there_is_one_response(manager):
    (response,) = run(manager, [5, 6, 7], 10, return_log_probs=True, **NO_END)
    assert len(response.tokens) == len(response.log_probs) == 10
    assert response.cum_log_prob == pytest.approx(sum(response.log_probs), rel=1e-5)
    assert (response.is_final, response.finish_reason, response.error) == (True, "length", None)


def test_each_request_says_how_many_drafts_it_wants(engine_dir, manager):
    (expected,) = run(manager, [5, 6, 7], 30, **NO_END)
    with _native.BatchManager(engine_dir, num_threads=1, draft_engine_dir=engine_dir, num_draft_tokens=3) as drafting:
        (plain,) = run(drafting, [5, 6, 7], 30, num_draft_tokens=0, **NO_END)
        assert drafting.statistics()["draft_tokens"] == 0
        (drafted,) = run(drafting, [5, 6, 7], 30, num_draft_tokens=2, **NO_END)
        assert drafting.statistics()["accepted_draft_tokens"] > 0
    assert plain.tokens == drafted.tokens == expected.tokens


def test_streamed_tokens_join_to_the_others(manager):
    (whole,) = run(manager, [5, 6, 7], 30, **NO_END)
    responses = run(manager, [5, 6, 7], 30, streaming=True, **NO_END)
    tokens = [token for response in responses for token in response.tokens]
    assert tokens == whole.tokens
    sent = []
    for response in responses:
        assert response.preceding_tokens == sent[-16:]
        sent += response.tokens


def test_input_ids_may_be_an_array(manager):
    (listed,) = run(manager, [5, 6, 7], 5)
    (array,) = run(manager, np.array([5, 6, 7]), 5)
    assert array.tokens == listed.tokens


@pytest.mark.parametrize(
    "options, message",
    [
        ({"temperature": -1.0}, "temperature is -1"),
        ({"top_k": "many"}, "top_k is 'many'; it must be an integer"),
        ({"top_k": 2**31}, "top_k is 2147483648; it must be an integer from -2"),
        ({"random_seed": -1}, "random_seed is -1; it must be an integer from 0 to 2"),
        ({"streaming": 1}, "streaming is 1; it must be True or False"),
        ({"beam": 2}, "'beam' is no request option; there are bad_words, "),
        ({"stop_words": [[]]}, "stop_words"),
        ({"stop_words": [5]}, r"stop_words is \[5\]; it must be a list of lists of integers"),
        ({"end_ids": None}, "end_ids is None; it must be a list of integers"),
        ({"timeout": 0}, "timeout is 0; it must be None or a number of seconds above 0"),
        ({"timeout": float("nan")}, "timeout is nan"),
        ({"timeout": "soon"}, "timeout is 'soon'"),
        ({"early_stopping": "always"}, "early_stopping is 'always'; it must be True, False or 'never'"),
        ({"guided_decoding": ("yaml", "")}, r"guided_decoding is \('yaml', ''\); it must be None or \(type, guide\)"),
        ({"guided_decoding": "json"}, "guided_decoding is 'json'"),
        ({"embedding_bias": ["a"]}, "embedding_bias is .*; it must be None or an array of float32"),
        (
            {"retention_ranges": [(0, 1)]},
            r"retention_ranges is \[\(0, 1\)\]; it must be a list of \(begin",
        ),
        ({"retention_decode_duration_ms": 1.5}, "retention_decode_duration_ms is 1.5; it must be None or an integer"),
        ({"prompt_extra_ids": [-1, 0]}, r"prompt_extra_ids is \[-1, 0\]; it must be a list of integers from 0"),
        ({"input_ids": [1, "a"]}, r"input_ids is \[1, 'a'\]; it must be a list of integers"),
        ({"max_new_tokens": None}, "max_new_tokens is None; it must be an integer"),
        ({"callback": 5}, "callback is 5; it must be callable"),
    ],
)
def test_bad_options_are_refused_by_name(manager, options, message):
    with pytest.raises(InflightError, match=message) as caught:
        manager.submit(**{"input_ids": [1, 2], "max_new_tokens": 3, "callback": pytest.fail, **options})
    assert caught.value.code == "invalid_argument"
    assert len(run(manager, [1, 2], 3, **NO_END)[0].tokens) == 3


def test_a_full_queue_is_unavailable(engine_dir):
    with _native.BatchManager(engine_dir, num_threads=1, max_queue_size=1) as manager:
        with pytest.raises(InflightError, match="queue is full") as caught:
            for _ in range(1000):
                manager.submit([1], 200, lambda *_: None, **NO_END)
        assert caught.value.code == "unavailable"


def test_cancelling_frees_the_blocks(manager):
    collectors = [Collector() for _ in range(32)]
    requests = [manager.submit([1, 2], 250, collector, streaming=True, **NO_END) for collector in collectors]
    for request in requests:
        manager.cancel(request)
    reasons = [collector.wait()[-1].finish_reason for collector in collectors]
    assert reasons[-1] == "cancelled"
    statistics = manager.statistics()
    assert statistics["free_blocks"] == statistics["total_blocks"]
    assert statistics["generated_tokens"] < 32 * 250
    manager.cancel(requests[0])
    manager.cancel(12345)


def test_what_a_callback_raises_is_reported_and_the_next_request_works(manager, monkeypatch):
    reported = threading.Event()
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: (unraisable.append(report.exc_value), reported.set()))

    def callback(request_id, response):
        raise ValueError("of the caller's own making")

    manager.submit([1, 2], 3, callback)
    assert reported.wait(30)
    assert "own making" in str(unraisable[0])
    assert run(manager, [1, 2], 3, **NO_END)[0].finish_reason == "length"


def test_closing_ends_running_requests_with_an_error(engine_dir):
    manager = _native.BatchManager(engine_dir, num_threads=1)
    collector = Collector()
    manager.submit([1, 2], 250, collector, streaming=True, **NO_END)
    manager.close()
    assert collector.wait()[-1].error.code == "unavailable"
    manager.close()
    with pytest.raises(InflightError, match="closed"):
        manager.statistics()


def test_closing_from_a_callback_does_not_wait_for_itself(engine_dir):
    manager = _native.BatchManager(engine_dir, num_threads=1)
    collector = Collector()

    def callback(request_id, response):
        manager.close()
        collector(request_id, response)

    manager.submit([1, 2], 250, callback, streaming=True, **NO_END)
    assert collector.wait()[-1].is_final


def test_a_manager_whose_last_reference_is_its_own_callback_closes_by_itself(engine_dir):
    program = f"""
import os, threading, time
from inflight import _native

def num_threads():
    return len(os.listdir("/proc/self/task"))

threads = num_threads()
for _ in range(3):
    manager = _native.BatchManager({str(engine_dir)!r}, num_threads=1)
    manager.submit([1, 2], 3, lambda *_, manager=manager: None, end_ids=[-1])
    del manager
deadline = time.monotonic() + 30
while num_threads() > threads and time.monotonic() < deadline:
    time.sleep(0.01)
print(num_threads() - threads)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (0, "0\n"), result.stderr


def test_info_is_what_the_engine_was_built_for(manager):
    assert (manager.info.vocab_size, manager.info.max_batch_size, manager.info.max_num_tokens) == (480, 8, 64)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_threads": "all"}, "num_threads is 'all'; it must be an integer"),
        ({"scheduler_policy": "fair"}, "scheduler_policy is 'fair'; it must be 'guaranteed_no_evict', 'max_util"),
        ({"scheduler_policy": 1}, "scheduler_policy is 1; it must be 'guaranteed_no_evict'"),
        ({"enable_kv_cache_reuse": "yes"}, "enable_kv_cache_reuse is 'yes'; it must be True or False"),
        ({"max_tokens_in_kv_cache": 1.5}, "max_tokens_in_kv_cache is 1.5; it must be None or an integer"),
        ({"max_attention_windows": 64}, "max_attention_windows is 64; it must be a list of integers"),
        ({"tokenizer_dir": 5}, "tokenizer_dir is 5; it must be a str or a Path"),
        ({"history": -1}, "history is -1; it must be an integer from 0 to 1000000"),
        ({"policy": "fair"}, "'policy' is no option of a BatchManager; there are draft_engine_dir, enable_chunked"),
        ({"engine_dir": 5}, "engine_dir is 5; it must be a str or a Path"),
    ],
)
def test_bad_options_of_the_manager_are_refused_by_name(engine_dir, options, message):
    with pytest.raises(InflightError, match=message):
        _native.BatchManager(**{"engine_dir": engine_dir, **options})


def test_an_engine_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InflightError, match=str(tmp_path / "nowhere")):
        _native.BatchManager(tmp_path / "nowhere")


@pytest.mark.parametrize("ending", ["", "raise SystemExit(3)", "import os; os.kill(os.getpid(), 2)"])
def test_a_program_ends_while_requests_run(engine_dir, ending):
    program = f"""
from inflight import _native
manager = _native.BatchManager({str(engine_dir)!r}, num_threads=1)
for _ in range(20):
    manager.submit([1, 2], 250, lambda *_: None, streaming=True, end_ids=[-1])
{ending}
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "leak" not in result.stderr and "Fatal" not in result.stderr
    assert result.returncode in (0, 3, -2, 130)

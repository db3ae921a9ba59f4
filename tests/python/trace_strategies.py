"""Hypothesis strategies for the traces that tests/cpp/trace.h describes.

Tokens, lengths and pools are so small that prefixes, stop words, n-grams and block boundaries often meet. Everything
that is left out of a trace has its default, so that a failing one shrinks to the few fields that matter.
"""

import random

from hypothesis import strategies as st

VOCAB_SIZE = 20
MAX_SEQ_LEN = 96
MAX_BATCH_SIZE = 8
MAX_BEAM_WIDTH = 4

# Prompts begin like one of these, so that they share prefixes.
STEMS = [random.Random(seed).choices(range(1, VOCAB_SIZE), k=64) for seed in range(3)]

tokens = st.integers(0, VOCAB_SIZE - 1)
words = st.lists(st.lists(tokens, min_size=1, max_size=2), min_size=1, max_size=3)

SAMPLING = {
    "top_k": st.sampled_from([2, 5]),
    "top_p": st.sampled_from([0.5, 0.9, 1.0]),
    "temperature": st.sampled_from([0.5, 2.0]),
    "random_seed": st.integers(0, 2**64 - 9),
    "top_p_decay": st.sampled_from([0.5, 0.9]),
    "top_p_min": st.sampled_from([0.2, 0.6]),
    "top_p_reset_id": tokens,
    "repetition_penalty": st.sampled_from([0.7, 1.3]),
    "presence_penalty": st.sampled_from([-0.5, 1.0]),
    "frequency_penalty": st.sampled_from([-0.3, 0.6]),
    "min_length": st.integers(0, 12),
    "end_ids": st.one_of(st.just([-1]), st.lists(tokens, min_size=1, max_size=3, unique=True)),
    "bad_words": words,
    "embedding_bias": st.sampled_from([[2.0 * (i % 3) for i in range(VOCAB_SIZE)], [-5.0] + [0.0] * (VOCAB_SIZE - 1)]),
    "return_log_probs": st.just(True),
    "stop_words": words,
}
CANCELS = {
    "cancel_after": st.integers(1, 8),
    "is_cancelled_at": st.integers(0, 30),
    "deadline_ms": st.sampled_from([0, 1, 3, 10_000]),
}
LOGITS = {"return_context_logits": st.just(True), "return_generation_logits": st.just(True)}
KEYS = {"lora_task_id": st.integers(1, 2), "prompt_extra_ids": st.integers(1, 2)}

POLICIES = frozenset({"guaranteed_no_evict", "max_utilization", "static_batch"})
EVERYTHING = (
    "priorities",
    "cancels",
    "faults",
    "stops",
    "queues",
    "reuse",
    "host",
    "windows",
    "lookup",
    "drafts",
    "sequences",
    "beams",
    "logits",
)

priorities = st.integers(0, 100)
durations = st.sampled_from([0, 1, 60_000])


def one_in(count: int) -> st.SearchStrategy[bool]:
    """True once in so many times; shrinks to False."""
    return st.integers(1, count).map(lambda value: value == count)


def _subset(fields: dict[str, st.SearchStrategy], most: int) -> st.SearchStrategy[dict]:
    """Some of the fields."""
    names = st.lists(st.sampled_from(sorted(fields)), max_size=most, unique=True)
    return names.flatmap(lambda chosen: st.fixed_dictionaries({name: fields[name] for name in chosen}))


@st.composite
def _retentions(draw) -> dict:
    retention = draw(_subset({"decode_priority": priorities, "decode_duration_ms": durations}, 2))
    ranges, begin = [], 0
    for _ in range(draw(st.integers(0, 2))):
        begin += draw(st.integers(0, 12))
        item = {"begin": begin, "priority": draw(priorities), **draw(_subset({"duration_ms": durations}, 1))}
        begin += draw(st.integers(1, 16))
        ranges.append({**item, "end": begin})
    return {**retention, "ranges": ranges} if ranges else retention


@st.composite
def _requests(draw, features: frozenset[str], longest_prompt: int, capacity: int) -> dict:
    tail = draw(st.lists(tokens, max_size=4))
    stem = draw(st.sampled_from(STEMS))[: draw(st.integers(0, longest_prompt - len(tail)))]
    prompt = [*stem, *tail] or [1]
    most = min(capacity, MAX_SEQ_LEN) - len(prompt)
    request = {
        "input_ids": prompt,
        "max_new_tokens": draw(st.integers(1, max(1, min(most, 40)))),
        **draw(_subset(SAMPLING, 4)),
    }
    if draw(st.booleans()):
        request["streaming"] = True
    if "priorities" in features:
        request |= draw(_subset({"priority": st.sampled_from([0.0, 0.2, 0.8, 1.0])}, 1))
    if "cancels" in features and draw(one_in(4)):
        request |= draw(_subset(CANCELS, 1))
    if "logits" in features:
        request |= draw(_subset(LOGITS, 2))
    if "reuse" in features:
        request |= draw(_subset(KEYS, 1))
        if "prompt_extra_ids" in request:
            request["prompt_extra_ids"] = _extra_ids(request["prompt_extra_ids"], len(prompt))
        if draw(st.booleans()):
            request["retention"] = draw(_retentions())
    kinds = sorted(features & {"sequences", "beams", "drafts", "guides"})
    kind = draw(st.sampled_from(["plain", *kinds])) if kinds else "plain"
    return request | draw(_KINDS[kind](capacity))


def _extra_ids(variant: int, length: int) -> list[int]:
    """One image's tokens in the middle of the prompt."""
    return [variant if length // 3 <= i < 2 * length // 3 else 0 for i in range(length)]


def _sequences(capacity: int) -> st.SearchStrategy[dict]:
    return st.fixed_dictionaries({"num_return_sequences": st.integers(2, 4)})


@st.composite
def _beams(draw, capacity: int) -> dict:
    width = draw(st.integers(2, MAX_BEAM_WIDTH))
    others = {
        "length_penalty": st.sampled_from([-1.0, 0.5, 1.0, 2.0]),
        "early_stopping": st.sampled_from(["no", "never"]),
        "diversity_rate": st.sampled_from([0.3, 1.0]),
        "num_return_sequences": st.integers(1, width),
    }
    without_sampling = {
        "return_generation_logits": False,
        "top_k": 0,
        "top_p": 0.0,
        "temperature": 1.0,
        "top_p_decay": 1.0,
        "top_p_min": 1e-6,
    }
    lengths = {"max_new_tokens": draw(st.integers(1, max(1, min(16, capacity // 8))))}
    return {"beam_width": width, **lengths, **draw(_subset(others, 3)), **without_sampling, "top_p_reset_id": -1}


def _drafts(capacity: int) -> st.SearchStrategy[dict]:
    guessed = st.fixed_dictionaries({"draft_tokens": st.lists(tokens, min_size=1, max_size=4)})
    known = st.fixed_dictionaries(
        {"num_true_drafts": st.integers(1, 6), "wrong_draft": st.one_of(st.none(), st.integers(0, 5))}
    )
    return guessed | known


def _guides(capacity: int) -> st.SearchStrategy[dict]:
    choices = st.sampled_from(['["a", "ab", "abc"]', '["abc", "cba", "bbbb"]'])
    guides = st.one_of(
        st.fixed_dictionaries({"type": st.just("choice"), "guide": choices}),
        st.fixed_dictionaries({"type": st.just("regex"), "guide": st.sampled_from(["[ab]+c", "(abc){2,4}", "a*b*c*"])}),
    )
    return st.fixed_dictionaries({"guided_decoding": guides})


_KINDS = {
    "plain": lambda capacity: st.just({}),
    "sequences": _sequences,
    "beams": _beams,
    "drafts": _drafts,
    "guides": _guides,
}


@st.composite
def _options(draw, features: frozenset[str]) -> dict:
    tokens_per_block = draw(st.sampled_from([4, 1, 2, 8, 16]))
    batch_size = MAX_BATCH_SIZE if features & {"sequences", "beams"} else draw(st.integers(1, MAX_BATCH_SIZE))
    capacity = draw(st.integers(20, 70 if "max_utilization" in features else 200))
    options = {
        "policy": draw(st.sampled_from(sorted(features & POLICIES) or sorted(POLICIES))),
        "tokens_per_block": tokens_per_block,
        "num_blocks": -(-capacity // tokens_per_block),
        "max_batch_size": batch_size,
        "max_num_tokens": draw(st.integers(max(batch_size, 8 if "drafts" in features else 1), 32)),
    }
    if draw(one_in(4)):
        options |= {"enable_chunked_context": False, "max_num_tokens": draw(st.integers(8, 64))}
    if draw(one_in(8)):
        options["max_responses_per_second"] = 20_000
    options |= draw(_subset({"max_steps_in_flight": st.integers(2, 3)}, 1))
    if "queues" in features:
        options |= draw(_subset({"max_queue_size": st.integers(1, 3)}, 1))
    if "reuse" in features:
        options["enable_kv_cache_reuse"] = True
    if "host" in features and draw(st.booleans()):
        options["num_host_blocks"] = draw(st.integers(1, 12))
        options["copy_delay"] = draw(st.integers(0, 4))
    if "windows" in features:
        windows = draw(st.lists(st.integers(tokens_per_block + 1, 48), min_size=1, max_size=2))
        options["max_attention_windows"] = windows
        options |= draw(_subset({"sink_tokens": st.integers(1, min(8, *windows) - 1)}, 1))
    if "lookup" in features:
        options["max_draft_tokens"] = draw(st.integers(1, 5))
        options["max_ngram"] = draw(st.integers(1, 3))
    return options


@st.composite
def traces(draw, *features: str) -> dict:
    """A trace with any of these features: "priorities", "cancels", "faults", "stops", "queues", "reuse", "host",
    "windows", "lookup", "drafts", "sequences", "beams", "guides", "logits", and policies, all of them if none is named.
    """
    features = frozenset(features)
    options = draw(_options(features))
    capacity = options["num_blocks"] * options["tokens_per_block"]
    is_chunked = options.get("enable_chunked_context", True)
    drafts = 4 if "drafts" in features else 0  # verified beside a prompt
    longest = min(capacity * 2 // 3, 60 if is_chunked else options["max_num_tokens"] - drafts)
    requests = draw(st.lists(_requests(features, longest, capacity), min_size=1, max_size=8))
    times = st.one_of(st.just(0), st.integers(0, 60))
    events = [{"at": draw(times), "submit": request} for request in requests]
    if "cancels" in features:
        indices = st.integers(0, len(requests) - 1)
        events += [{"at": draw(times), "cancel": draw(indices)} for _ in range(draw(st.integers(0, 2)))]
    if "faults" in features and draw(one_in(4)):
        events.append({"at": draw(times), "fail": draw(st.sampled_from(["finish", "launch"]))})
    if "stops" in features and draw(one_in(6)):
        events.append({"at": draw(times), "stop": True})
    return {"options": options, "events": sorted(events, key=lambda event: event["at"])}


@st.composite
def crowds(draw) -> dict:
    """A trace in which requests of high priority never stop arriving while one of low priority waits."""
    options = draw(_options(frozenset({"reuse"}))) | {"max_batch_size": draw(st.integers(1, 2))}
    pressing = {"input_ids": [1], "max_new_tokens": 8, "end_ids": [-1], "priority": 1.0}
    patient = {"input_ids": [4, 5, 6], "max_new_tokens": draw(st.integers(1, 12)), "end_ids": [-1], "priority": 0.0}
    arrivals = draw(st.integers(1, 3))  # in each step, more than two slots take
    events = [{"at": i // arrivals, "submit": pressing} for i in range(600)]
    events.insert(draw(st.integers(0, 20)), {"at": 0, "submit": patient})
    return {"options": options, "events": events}

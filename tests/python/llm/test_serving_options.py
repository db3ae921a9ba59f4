"""How an LLM runs its engine: prefix caching, host tier, policies, drafts, windows."""

import pytest

from inflight.errors import InflightError
from inflight.llm import LLM, SamplingParams
from inflight.llm.serving_options import ServingOptions

GREEDY = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
LONG = "the quick brown fox jumps over the lazy dog and " * 3


def tokens_of(outputs):
    return [output.outputs[0].token_ids for output in outputs]


@pytest.fixture
def open_llm(engine_dir):
    return lambda **options: LLM(engine_dir, num_threads=1, **options)


def test_prompts_that_begin_alike_share_blocks(open_llm, llm):
    expected = tokens_of(llm.generate([LONG + "a", LONG + "b"], GREEDY))
    with open_llm() as caching, open_llm(enable_prefix_caching=False) as computing:
        for each in (caching, computing):
            assert [tokens_of(each.generate(LONG + end, GREEDY))[0] for end in "ab"] == expected
        assert caching.statistics()["kv_cache"]["reused_blocks"] > 0
        assert caching.statistics()["context_tokens"] < computing.statistics()["context_tokens"]
        assert computing.statistics()["kv_cache"]["reused_blocks"] == 0


def test_blocks_come_back_from_host_memory(open_llm):
    other = "something else altogether, " * 6
    with open_llm(max_tokens_in_kv_cache=256, kv_cache_host_memory_bytes=1 << 24) as llm:
        first = tokens_of(llm.generate(LONG, GREEDY))
        for end in "abc":
            llm.generate(end + other, GREEDY)
        again = tokens_of(llm.generate(LONG, GREEDY))
        statistics = llm.statistics()["kv_cache"]
    assert again == first
    assert statistics["total_host_blocks"] > 0
    assert statistics["offloaded_blocks"] > 0 and statistics["onboarded_blocks"] > 0


@pytest.mark.parametrize("policy", ["guaranteed_no_evict", "max_utilization", "static_batch"])
def test_no_policy_changes_what_is_generated(open_llm, llm, policy):
    sampling = SamplingParams(temperature=1, seed=5, max_tokens=100, ignore_eos=True)
    prompts = [f"prompt {index}" for index in range(12)]
    with open_llm(scheduler_policy=policy, max_tokens_in_kv_cache=512, enable_prefix_caching=False) as small:
        assert tokens_of(small.generate(prompts, sampling)) == tokens_of(llm.generate(prompts, sampling))
        assert (small.statistics()["pauses"] > 0) == (policy == "max_utilization")


def test_drafts_from_the_prompt_change_nothing_but_the_steps(open_llm, llm):
    sampling = SamplingParams(temperature=0, max_tokens=150, ignore_eos=True)
    speculative_config = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 2}
    with open_llm(speculative_config=speculative_config) as drafting:
        assert tokens_of(drafting.generate(LONG, sampling)) == tokens_of(llm.generate(LONG, sampling))
        statistics = drafting.statistics()
    assert 0 < statistics["accepted_draft_tokens"] <= statistics["draft_tokens"]
    assert statistics["iterations"] < 150


def test_a_draft_model_changes_nothing_but_the_steps(open_llm, llm, engine_dir):
    sampling = [SamplingParams(temperature=heat, seed=3, max_tokens=60, ignore_eos=True) for heat in (0, 1)]
    prompts = ["The river", LONG]
    speculative_config = {"method": "draft_model", "model": engine_dir, "num_speculative_tokens": 3}
    with open_llm(speculative_config=speculative_config) as drafting:
        assert tokens_of(drafting.generate(prompts, sampling)) == tokens_of(llm.generate(prompts, sampling))
        statistics = drafting.statistics()
    assert statistics["accepted_draft_tokens"] > statistics["draft_tokens"] // 2  # it is the very same model
    assert statistics["iterations"] < 60


def test_a_draft_model_that_is_no_engine_is_built_for_its_target(open_llm, llm, tiny_directory, tmp_path):
    model = tiny_directory("llama-tied")
    speculative_config = {"method": "draft_model", "model": model, "num_speculative_tokens": 2}
    with open_llm(speculative_config=speculative_config, cache_dir=tmp_path, progress=False) as drafting:
        assert tokens_of(drafting.generate(LONG, GREEDY)) == tokens_of(llm.generate(LONG, GREEDY))
        assert drafting.statistics()["draft_tokens"] > 0


@pytest.mark.parametrize(
    "name, limits, message",
    [
        ("llama-odd-sizes", {}, "has a vocabulary of 431, but .* of 480; both models must have one tokenizer"),
        ("llama-tied", {"max_batch_size": 4}, "max_batch_size 4, but .* with 8; .* with --max-batch-size 8"),
        ("llama-tied", {"max_seq_len": 64}, "max_seq_len 64, but .* with 256; .* with --max-seq-len 256"),
    ],
)
def test_a_draft_engine_that_does_not_fit_is_refused(open_llm, tiny_engine, name, limits, message):
    draft_engine = tiny_engine(name, **{"max_batch_size": 8, "max_num_tokens": 64} | limits)
    speculative_config = {"method": "draft_model", "model": draft_engine, "num_speculative_tokens": 2}
    with pytest.raises(InflightError, match=f"model of speculative_config: the draft engine {draft_engine}.*{message}"):
        open_llm(speculative_config=speculative_config)


def test_windows_as_wide_as_a_sequence_change_nothing_and_narrow_ones_free_blocks(open_llm, llm):
    sampling = SamplingParams(temperature=0, max_tokens=180, ignore_eos=True)
    expected = tokens_of(llm.generate(LONG, sampling))
    with open_llm(max_attention_windows=[256], enable_prefix_caching=False) as wide:
        assert tokens_of(wide.generate(LONG, sampling)) == expected
    with open_llm(max_attention_windows=[64], sink_tokens=4, enable_prefix_caching=False) as narrow:
        assert tokens_of(narrow.generate(LONG, sampling)) != expected
        used = [iteration["used_blocks"] for iteration in narrow._manager.last_iterations()]
    assert max(used) < 256 // 32


def test_prompts_longer_than_a_step_need_chunked_prefill(open_llm):
    with open_llm(enable_chunked_prefill=False) as llm:
        with pytest.raises(InflightError, match="enable_chunked_context"):
            llm.generate(list(range(65)), GREEDY)


def test_a_request_brings_no_more_words_than_the_options_allow(open_llm):
    with open_llm(max_words=2, max_words_length=12) as llm:
        llm.generate("a", SamplingParams(max_tokens=2, bad_words=["x", "y"]))
        with pytest.raises(InflightError, match="bad_words has 6 words as tokens; at most 4 .* a larger max_words"):
            llm.generate("a", SamplingParams(max_tokens=2, bad_words=["x", "y", "z"]))
        with pytest.raises(InflightError, match="bad_words have .* together; at most 26 .* a larger max_words_length"):
            llm.generate("a", SamplingParams(max_tokens=2, bad_words=["Ünïcödé" * 2, "x"]))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"max_words": "many"}, "max_words is 'many'; it must be None or an integer"),
        ({"scheduler_policy": "fair"}, "scheduler_policy is 'fair'; it must be one of guaranteed_no_evict, max_util"),
        ({"enable_prefix_caching": 1}, "enable_prefix_caching is 1; it must be True or False"),
        ({"kv_cache_host_memory_bytes": "1GiB"}, "kv_cache_host_memory_bytes is '1GiB'; it must be an integer"),
        ({"max_tokens_in_kv_cache": 1.5}, "max_tokens_in_kv_cache is 1.5; it must be None or an integer"),
        ({"max_attention_windows": 64}, "max_attention_windows is 64; it must be a list of integers"),
        ({"speculative_config": "ngram"}, "speculative_config is 'ngram'; it must be a dict"),
        (
            {"speculative_config": {"method": "eagle", "num_speculative_tokens": 2}},
            "method of speculative_config is 'eagle'",
        ),
        (
            {"speculative_config": {"method": "draft_model", "num_speculative_tokens": 2}},
            "model of speculative_config is None; it must be a str or a Path",
        ),
        ({"speculative_config": {"method": "ngram"}}, "num_speculative_tokens of speculative_config is None"),
        (
            {"speculative_config": {"method": "ngram", "num_speculative_tokens": 0}},
            "num_speculative_tokens of speculative_config is 0; it must be at least 1",
        ),
        (
            {"speculative_config": {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_min": 2}},
            "prompt_lookup_min of speculative_config is 2; it must be 1",
        ),
        (
            {"speculative_config": {"method": "ngram", "num_speculative_tokens": 2, "draft_model": "a"}},
            "speculative_config has 'draft_model'; for ngram there are method, num_speculative_tokens",
        ),
    ],
)
def test_options_that_make_no_sense_are_refused_by_name(options, message):
    with pytest.raises(InflightError, match=message):
        ServingOptions(**options)

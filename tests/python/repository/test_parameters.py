"""What the Python models read of their configuration, and what they refuse to start with."""

import pytest

from inflight.errors import InflightError
from inflight.repository.parameters import (
    flag_parameter,
    prompt_limits_parameters,
    require_batches,
    text_parameter,
    tokenizer_parameter,
    word_limits_parameters,
)
from inflight.text.prompt_encoder import PromptLimits
from inflight.text.word_limits import WordLimits


def config(value):
    return {"name": "preprocessing", "max_batch_size": 8, "parameters": {"key": {"string_value": value}}}


@pytest.mark.parametrize("value", ["", "${key}", "${key | default('x')}"])
def test_an_unfilled_parameter_stands_for_its_default(value):
    assert text_parameter(config(value), "key", default="x") == "x"
    with pytest.raises(InflightError, match="model preprocessing: parameter key is required"):
        text_parameter(config(value), "key")


@pytest.mark.parametrize("value, expected", [("True", True), ("1", True), ("no", False), ("", True)])
def test_flags_come_in_several_spellings(value, expected):
    assert flag_parameter(config(value), "key", default=True) is expected


def test_other_flags_are_refused():
    with pytest.raises(InflightError, match="parameter key is 'maybe'; it takes true, 1"):
        flag_parameter(config("maybe"), "key", default=True)


def test_how_many_words_a_request_may_bring_is_a_parameter():
    parameters = {"max_words": {"string_value": "7"}, "max_words_length": {"string_value": "${max_words_length}"}}
    assert word_limits_parameters(config("") | {"parameters": parameters}) == WordLimits(max_words=7)
    with pytest.raises(InflightError, match="model preprocessing: parameter max_words is '-1'; it must be an integer"):
        word_limits_parameters(config("") | {"parameters": {"max_words": {"string_value": "-1"}}})


def test_models_without_batches_are_refused():
    require_batches(config(""))
    with pytest.raises(InflightError, match=r"model preprocessing: max_batch_size \(.*\) is 0; fill in at least 1"):
        require_batches(config("") | {"max_batch_size": 0})


def test_a_tokenizer_that_cannot_be_read_is_named_with_its_parameter(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    tokenizer = {"parameters": {"tokenizer_dir": {"string_value": str(tmp_path)}}}
    with pytest.raises(InflightError) as error:
        tokenizer_parameter(config("") | tokenizer)
    assert "model preprocessing: parameter tokenizer_dir" in str(error.value)
    assert f"{tmp_path}/tokenizer.json is not a tokenizer" in str(error.value)


def test_limits_of_prompts_come_from_the_engine_and_the_parameter(tiny_engine, tmp_path):
    engine = str(tiny_engine("llama", max_seq_len=128))
    limits = {"parameters": {"max_text_bytes": {"string_value": "1000"}}}
    assert prompt_limits_parameters(config(""), engine) == PromptLimits(max_tokens=128)
    assert prompt_limits_parameters(config("") | limits, "") == PromptLimits(max_bytes=1000)
    older = tmp_path / "config.json"  # of TensorRT-LLM
    older.write_text('{"builder_config": {"max_input_len": 100}}')
    assert prompt_limits_parameters(config(""), str(tmp_path)) == PromptLimits()


def test_limit_of_bytes_that_is_no_number_is_refused():
    limits = {"parameters": {"max_text_bytes": {"string_value": "1 MB"}}}
    with pytest.raises(InflightError, match="parameter max_text_bytes is '1 MB'; it takes a number of bytes"):
        prompt_limits_parameters(config("") | limits, "")

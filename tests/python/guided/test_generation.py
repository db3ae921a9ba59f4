"""Guided texts of a model: whole responses through inflight.LLM."""

import asyncio
import json
import re

import pytest
from jsonschema import validate

from inflight.errors import InflightError
from inflight.llm import LLM, SamplingParams, StructuredOutputsParams

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 30},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "home": {
            "anyOf": [
                {"type": "null"},
                {
                    "type": "object",
                    "properties": {"city": {"enum": ["Paris", "東京", "New York"]}},
                    "required": ["city"],
                },
            ]
        },
        "scores": {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 10}, "maxItems": 3},
    },
    "required": ["name", "age", "home", "scores"],
}
PROMPT = "A person as JSON: "
SEEDS = range(12)


@pytest.fixture(scope="module")
def llm(smollm2_engine):
    with LLM(smollm2_engine(), enable_prefix_caching=True) as llm:
        yield llm


def guided(seed=0, **guide):
    structure = StructuredOutputsParams(**guide)
    return SamplingParams(temperature=1, seed=seed, max_tokens=400, structured_outputs=structure)


def test_objects_follow_their_schema_at_temperature_1(llm):
    outputs = llm.generate([PROMPT] * len(SEEDS), [guided(seed, json=PERSON) for seed in SEEDS])
    texts = [output.outputs[0].text for output in outputs]
    for text, output in zip(texts, outputs, strict=True):
        validate(json.loads(text), PERSON)
        assert output.outputs[0].finish_reason == "stop"
    assert len(set(texts)) > len(SEEDS) // 2


def test_a_text_is_the_same_alone(llm):
    (alone,) = llm.generate(PROMPT, guided(3, json=PERSON))
    together = llm.generate([PROMPT] * 5, [guided(seed, json=PERSON) for seed in range(5)])
    assert together[3].outputs[0].token_ids == alone.outputs[0].token_ids


def test_every_type_of_guide_in_one_batch_with_free_texts(llm):
    free = SamplingParams(temperature=0, max_tokens=30)
    (expected,) = llm.generate("The river", free)
    grammar = 'root ::= "(" ("left" | "right" | root) ")"'
    choices = ['"yes"', "no\nnever", "也许"]
    texts = [
        output.outputs[0].text
        for output in llm.generate(
            ["The river"] * 6,
            [
                guided(json=PERSON),
                free,
                guided(regex=r"[A-Z][a-zé]{2,9}( [A-Z][a-zé]{2,9})?"),
                guided(choice=choices),
                guided(grammar=grammar),
                free,
            ],
        )
    ]
    validate(json.loads(texts[0]), PERSON)
    assert texts[1] == texts[5] == expected.outputs[0].text
    assert re.fullmatch(r"[A-Z][a-zé]{2,9}( [A-Z][a-zé]{2,9})?", texts[2])
    assert texts[3] in choices
    assert re.fullmatch(r"\(+(left|right)\)+", texts[4]) and texts[4].count("(") == texts[4].count(")")


def test_several_sequences_of_one_prompt(llm):
    structure = StructuredOutputsParams(json=PERSON)
    (output,) = llm.generate(PROMPT, SamplingParams(n=4, seed=1, max_tokens=400, structured_outputs=structure))
    texts = [sequence.text for sequence in output.outputs]
    for text in texts:
        validate(json.loads(text), PERSON)
    assert len(set(texts)) > 1


def test_a_streamed_text_is_the_whole_text(llm):
    async def read():
        return [output async for output in llm.stream(PROMPT, guided(5, json=PERSON))]

    streamed = "".join(output.outputs[0].text for output in asyncio.run(read()))
    (whole,) = llm.generate(PROMPT, guided(5, json=PERSON))
    assert streamed == whole.outputs[0].text
    validate(json.loads(streamed), PERSON)


@pytest.mark.parametrize("options", [{"ignore_eos": True}, {"stop_token_ids": [1]}])
def test_a_complete_text_ends_whatever_else_is_asked_for(llm, options):
    structure = StructuredOutputsParams(choice=["one", "two"])
    params = SamplingParams(max_tokens=100, seed=0, structured_outputs=structure, **options)
    (output,) = llm.generate("Which? ", params)
    assert output.outputs[0].text in ("one", "two")
    assert output.outputs[0].finish_reason == "stop"


@pytest.mark.parametrize(
    "guide, options, message",
    [
        ({"regex": "abc"}, {"bad_words": ["a", "ab", "abc", "b", "bc", "c"]}, "no token continues the text"),
        ({"regex": "a[0-9]"}, {"bad_words": list("0123456789")}, "no token continues the text"),
        ({"choice": ["one", "two"]}, {"min_tokens": 60}, "the text is complete after [0-9]+ tokens"),
    ],
)
def test_a_text_that_other_options_bring_to_a_dead_end_is_an_error(llm, guide, options, message):
    structure = StructuredOutputsParams(**guide)
    with pytest.raises(InflightError, match=message):
        llm.generate("Which? ", SamplingParams(max_tokens=100, seed=0, structured_outputs=structure, **options))
    (output,) = llm.generate("The river", guided(choice=["ok"]))
    assert output.outputs[0].text == "ok"


def test_max_tokens_cut_a_text_off(llm):
    structure = StructuredOutputsParams(regex="a{50}")
    (output,) = llm.generate("b", SamplingParams(max_tokens=5, seed=0, structured_outputs=structure))
    assert set(output.outputs[0].text) == {"a"}
    assert output.outputs[0].finish_reason == "length"


@pytest.mark.parametrize(
    "guide, message",
    [
        ({"json": {"type": "text"}}, 'guided_decoding: json_schema: #/type has "text", which is no type'),
        ({"json": "{"}, "guided_decoding: json_schema: .*parse error"),
        ({"json": {"type": "array", "uniqueItems": True}}, "#/uniqueItems is not supported"),
        ({"regex": "(a"}, "guided_decoding: regex: at character 3: a group is not closed"),
        ({"grammar": "root ::= other"}, 'guided_decoding: grammar: .*Rule "other" is not defined'),
    ],
)
def test_a_guide_that_means_nothing_ends_its_request_alone(llm, guide, message):
    with pytest.raises(InflightError, match=message):
        llm.generate("The river", guided(**guide))
    (output,) = llm.generate("The river", guided(choice=["ok"]))
    assert output.outputs[0].text == "ok"

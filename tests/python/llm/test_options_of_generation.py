"""Bias, structure, logits, priority: what a request may ask for beside sampling."""

import asyncio
import json
import re

import numpy as np
import pytest

from inflight import _native
from inflight.errors import InflightError
from inflight.llm import LLM, GuidedDecodingParams, SamplingParams, StructuredOutputsParams

GREEDY = {"temperature": 0, "max_tokens": 12, "ignore_eos": True}


def generate(llm, prompt="The river", **options):
    (output,) = llm.generate(prompt, SamplingParams(**{**GREEDY, **options}))
    return output.outputs[0]


def test_logit_bias_forbids_and_forces_tokens(llm):
    tokens = generate(llm).token_ids
    forbidden = generate(llm, logit_bias={tokens[0]: -100, tokens[1]: -100.0}).token_ids
    assert tokens[0] not in forbidden and tokens[1] not in forbidden
    assert generate(llm, logit_bias={77: 100}).token_ids == [77] * 12
    assert generate(llm, logit_bias={}).token_ids == tokens


def test_a_bias_of_a_token_that_is_not_there_is_refused(llm):
    with pytest.raises(InflightError, match="logit_bias holds token 480; token ids of this model are 0 to 479"):
        generate(llm, logit_bias={480: 1})


def structured(llm, **structure):
    sampling = SamplingParams(
        temperature=1, seed=3, max_tokens=200, structured_outputs=StructuredOutputsParams(**structure)
    )
    (output,) = llm.generate("Answer: ", sampling)
    return output.outputs[0]


def test_a_choice_is_one_of_the_choices(llm):
    output = structured(llm, choice=["positive", "négative", "neither, nor"])
    assert output.text in ("positive", "négative", "neither, nor")
    assert output.finish_reason == "stop"


def test_a_regex_matches_the_whole_text(llm):
    assert re.fullmatch(r"[0-9]{3}-[a-f]{2}", structured(llm, regex="[0-9]{3}-[a-f]{2}").text)


def test_a_grammar_is_followed(llm):
    text = structured(llm, grammar='root ::= "SELECT " column " FROM t"\ncolumn ::= "a" | "b"').text
    assert text in ("SELECT a FROM t", "SELECT b FROM t")


@pytest.mark.parametrize("form", [dict, json.dumps])
def test_a_schema_may_be_an_object_or_text(llm, form):
    # Without strings: the quotation mark is an end id of this model.
    schema = {"type": "array", "items": {"enum": [True, 12]}, "minItems": 2, "maxItems": 2}
    values = json.loads(structured(llm, json=form(schema)).text)
    assert len(values) == 2 and all(value in (True, 12) for value in values)


def test_any_json_object_begins_as_one(llm):
    assert structured(llm, json_object=True).text.lstrip().startswith("{")


def test_the_older_name_of_structured_outputs_works(llm):
    assert generate(llm, ignore_eos=False, guided_decoding=GuidedDecodingParams(choice=["yes"])).text == "yes"


@pytest.mark.parametrize(
    "structure, message",
    [
        ({}, "structured_outputs has none of them; it must have exactly one of json, regex, choice, grammar"),
        ({"json_object": False}, "structured_outputs has none of them"),
        ({"regex": "a", "choice": ["b"]}, "structured_outputs has regex and choice; it must have exactly one"),
        ({"choice": []}, "choice is empty"),
        ({"choice": "yes"}, "choice is 'yes'; it must be a list of strings"),
        ({"regex": 5}, "regex is 5; it must be a str"),
        ({"grammar": b"root"}, "grammar is b'root'; it must be a str"),
        ({"json": 5}, "json is 5; it must be a JSON schema: a dict or a str"),
        ({"json": {"enum": {1, 2}}}, "json cannot be written as JSON"),
        ({"json_object": "yes"}, "json_object is 'yes'; it must be True or False"),
        ({"regex": "\ud800"}, "regex is not valid Unicode text"),
    ],
)
def test_a_structure_that_makes_no_sense_is_refused(structure, message):
    with pytest.raises(InflightError, match=message):
        StructuredOutputsParams(**structure)


@pytest.mark.parametrize("structure", [{"regex": "(a"}, {"grammar": "no ::= root"}, {"json": "{"}])
def test_a_guide_that_does_not_compile_names_the_option(llm, structure):
    with pytest.raises(InflightError, match="guided_decoding") as caught:
        structured(llm, **structure)
    assert caught.value.code == "invalid_argument"


def test_logits_are_those_of_the_model(llm, engine_dir):
    sampling = SamplingParams(**GREEDY, return_context_logits=True, return_generation_logits=True)
    (output,) = llm.generate("The river", sampling)
    tokens = output.prompt_token_ids + output.outputs[0].token_ids
    expected = _native.Engine(engine_dir, num_threads=1).logits([tokens])[0]
    prompt = len(output.prompt_token_ids)
    np.testing.assert_allclose(output.context_logits, expected[:prompt], atol=1e-3)
    np.testing.assert_allclose(output.outputs[0].generation_logits, expected[prompt - 1 : -1], atol=1e-3)


def test_streamed_logits_have_a_row_for_each_token(llm):
    (whole,) = llm.generate("The river", SamplingParams(**GREEDY, return_generation_logits=True))

    async def read():
        sampling = SamplingParams(**GREEDY, return_context_logits=True, return_generation_logits=True)
        return [piece async for piece in llm.stream("The river", sampling)]

    pieces = asyncio.run(read())
    assert all(piece.context_logits.shape == (len(piece.prompt_token_ids), 480) for piece in pieces)
    rows = [piece.outputs[0].generation_logits for piece in pieces if piece.outputs[0].token_ids]
    np.testing.assert_allclose(np.concatenate(rows), whole.outputs[0].generation_logits, atol=1e-3)


def test_there_are_no_logits_unless_asked_for(llm):
    (output,) = llm.generate("The river", SamplingParams(**GREEDY))
    assert output.context_logits is None and output.outputs[0].generation_logits is None


def test_a_request_of_higher_priority_overtakes_those_that_wait(engine_dir):
    order = []
    with LLM(engine_dir, num_threads=1) as llm:

        async def serve(name, **options):
            async for output in llm.stream("a", SamplingParams(**{**GREEDY, "max_tokens": 60}), **options):
                if output.finished:
                    order.append(name)

        async def serve_all():
            await asyncio.gather(*(serve(index) for index in range(64)), serve("urgent", priority=1.0))

        asyncio.run(serve_all())
    assert order.index("urgent") < 56  # in order of arrival it is last; eight run at a time


@pytest.mark.parametrize("priority", [-0.1, 1.5, float("nan")])
def test_a_priority_out_of_its_range_is_named(llm, priority):
    with pytest.raises(InflightError, match="priority"):
        llm.generate("a", SamplingParams(**GREEDY), priority=priority)


@pytest.mark.parametrize(
    "sampling, message",
    [
        ({"n": 0}, "n is 0; it must be at least 1"),
        ({"n": 1.5}, "n is 1.5; it must be an integer"),
        ({"logit_bias": [1, 2]}, r"logit_bias is \[1, 2\]; it must be a dict"),
        ({"logit_bias": {"a": 1}}, "logit_bias has the key 'a'; it must be a token id"),
        ({"logit_bias": {1: "much"}}, "logit_bias of token 1 is 'much'; it must be a number"),
        ({"logit_bias": {1: float("-inf")}}, "logit_bias of token 1 is -inf; it must be finite"),
        ({"logit_bias": {1: 1e39}}, r"logit_bias of token 1 is 1e\+39; it must be finite in float32"),
        ({"logit_bias": {1: 10**400}}, r"logit_bias of token 1 is 1.*; it must be finite in float32"),
        ({"structured_outputs": {"regex": "a"}}, "structured_outputs is .*; it must be StructuredOutputsParams"),
        ({"return_context_logits": 1}, "return_context_logits is 1; it must be True or False"),
        (
            dict.fromkeys(("structured_outputs", "guided_decoding"), StructuredOutputsParams(regex="a")),
            "structured_outputs and guided_decoding are two names of one option",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(sampling, message):
    with pytest.raises(InflightError, match=message):
        SamplingParams(**sampling)

"""Whatever a model would like to say, its text is valid, and every branch of the schema can be taken."""

import json
import re
from itertools import combinations

import pytest
from jsonschema import Draft202012Validator


def integers(*names):
    return {name: {"type": "integer"} for name in names}


def keys(*names):
    return lambda value: list(value) == list(names)


def equals(expected):
    return lambda value: value == expected and type(value) is type(expected)


COLORS = ["red", "grün", "红", "🙂", 'say "\\hi"', "a\nb", 1, 2.5, True, None, {"a": [1, None]}, []]

POINT = {
    "type": "object",
    "properties": {"x": {"type": "number"}, "label": {"type": ["string", "null"]}},
    "required": ["x", "label"],
}
CASES = {  # schema; for each branch, what tells a value that takes it
    "nested objects": (
        {
            "type": "object",
            "properties": {
                "id": {"type": "integer"},
                "inner": {"type": "object", "properties": {"point": POINT}, "required": ["point"]},
            },
            "required": ["id", "inner"],
        },
        {
            "label": lambda value: isinstance(value["inner"]["point"]["label"], str),
            "no label": lambda value: value["inner"]["point"]["label"] is None,
        },
    ),
    "enum": ({"enum": COLORS}, {str(color): equals(color) for color in COLORS}),
    "const": ({"const": {"ключ": ["值", 1]}}, {"it": equals({"ключ": ["值", 1]})}),
    "optional properties": (
        {"type": "object", "properties": integers("a", "b", "c")},
        {str(names): keys(*names) for count in range(4) for names in combinations("abc", count)},
    ),
    "optional and required properties": (
        {"type": "object", "properties": integers("a", "b", "c"), "required": ["b"]},
        {str(names): keys(*names) for names in ("b", "ab", "bc", "abc")},
    ),
    "further properties": (
        {"type": "object", "additionalProperties": {"type": "boolean"}, "minProperties": 1, "maxProperties": 2},
        {"one": lambda value: len(value) == 1, "two": lambda value: len(value) == 2},
    ),
    "properties by pattern": (
        {"type": "object", "patternProperties": {"^[a-c]{2}$": {"type": "null"}}},
        {"none": equals({}), "some": lambda value: len(value) > 0},
    ),
    "names in Chinese": (
        {"type": "object", "properties": {"名字": {"type": "boolean"}, "年龄": {"type": "null"}}, "required": ["名字"]},
        {"short": keys("名字"), "long": keys("名字", "年龄")},
    ),
    "numbers": (
        {"type": "array", "items": {"type": "number"}, "minItems": 5, "maxItems": 5},
        {
            "negative": lambda value: min(value) < 0,
            "fraction": lambda value: any(isinstance(x, float) and x % 1 for x in value),
            "whole": lambda value: any(isinstance(x, int) for x in value),
            "zero": lambda value: 0 in value,
        },
    ),
    "range": (
        {"type": "integer", "minimum": -3, "maximum": 12},
        {str(number): equals(number) for number in range(-3, 13)},
    ),
    "range of fractions": (
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1.5},
        {"below 1": lambda value: value < 1, "above 1": lambda value: value > 1},
    ),
    "multiples": (
        {"type": "integer", "minimum": 0, "maximum": 20, "multipleOf": 5},
        {str(number): equals(number) for number in range(0, 21, 5)},
    ),
    "array lengths": (
        {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
        {str(length): lambda value, length=length: len(value) == length for length in (1, 2, 3)},
    ),
    "tuples": (
        {"type": "array", "prefixItems": [{"type": "null"}, {"enum": ["a", "b"]}], "items": {"type": "integer"}},
        {"short": lambda value: len(value) == 2, "long": lambda value: len(value) > 2},
    ),
    "anyOf": (
        {"anyOf": [{"type": "integer"}, {"type": "null"}, {"enum": ["是", "否"]}, {"type": "array", "items": POINT}]},
        {
            "integer": lambda value: isinstance(value, int),
            "null": equals(None),
            "yes": equals("是"),
            "no": equals("否"),
            "empty": equals([]),
            "points": lambda value: isinstance(value, list) and value,
        },
    ),
    "oneOf": (
        {"oneOf": [{"type": "integer"}, {"type": "boolean"}]},
        {"integer": lambda value: type(value) is int, "true": equals(True), "false": equals(False)},
    ),
    "list of types": (
        {"type": ["integer", "null", "boolean"]},
        {"integer": lambda value: type(value) is int, "null": equals(None), "true": equals(True)},
    ),
    "references": (
        {
            "$defs": {
                "link": {
                    "type": "object",
                    "properties": {"next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/link"}]}},
                    "required": ["next"],
                }
            },
            "$ref": "#/$defs/link",
        },
        {
            "one": lambda value: value["next"] is None,
            "two": lambda value: value["next"] == {"next": None},
            "more": lambda value: value["next"] and value["next"]["next"],
        },
    ),
    "patterns": (
        {"type": "string", "pattern": "^(猫|犬)[a-c]{1,2}$"},
        {first + rest: equals(first + rest) for first in "猫犬" for rest in "abc"},
    ),
    "string lengths": (
        {"type": "string", "minLength": 1, "maxLength": 3},
        {str(length): lambda value, length=length: len(value) == length for length in (1, 2, 3)},
    ),
    "dates": ({"type": "string", "format": "date"}, {"it": lambda value: len(value) == 10}),
    "addresses": ({"type": "string", "format": "ipv4"}, {"it": lambda value: value.count(".") == 3}),
    "one allOf": ({"allOf": [{"type": "boolean"}]}, {"true": equals(True), "false": equals(False)}),
    "property order": (
        {"type": "object", "properties": integers("z", "a"), "required": ["a", "z"]},
        {"as in the schema": keys("z", "a")},
    ),
}
BATCH = 40
MOST_WALKS = 2000


@pytest.mark.parametrize("name", CASES)
def test_every_text_is_valid_and_every_branch_taken(walker, name):
    schema, branches = CASES[name]
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    not_taken = set(branches)
    for seed in range(0, MOST_WALKS, BATCH):
        for text in walker.texts("json_schema", json.dumps(schema), BATCH, seed):
            value = json.loads(text)
            validator.validate(value)
            not_taken = {branch for branch in not_taken if not branches[branch](value)}
        if not not_taken:
            return
    assert not_taken == set()


def test_strings_hold_what_json_allows(walker):
    texts = walker.texts("json_schema", '{"type": "string"}', 120)
    values = [json.loads(text) for text in texts]
    assert all(isinstance(value, str) for value in values)
    for what in (r"[一-鿿]", r"[À-ɏ]", r'\\"', r"\\\\", r"\\n", r"\\u[0-9a-fA-F]{4}", r"[\U00010000-\U0010ffff]"):
        assert any(re.search(what, text) for text in texts), what


def test_any_object(walker):
    values = [json.loads(text) for text in walker.texts("json", "", 60, max_tokens=60_000)]
    assert all(isinstance(value, dict) for value in values)
    inner = [item for value in values for item in value.values()]
    assert {type(item) for item in inner} >= {dict, list, str, int, bool, type(None)}


def test_tokens_that_are_bytes(make_walker, tmp_path):
    import small_tokenizers

    tokenizer = small_tokenizers.sentencepiece()
    directory = small_tokenizers.save(tokenizer, tmp_path)
    walker = make_walker(directory, tokenizer.get_vocab_size() + 7, "</s>")
    schema = {"type": "object", "properties": {"a b": {"type": "string", "maxLength": 20}}, "required": ["a b"]}
    values = [json.loads(text) for text in walker.texts("json_schema", json.dumps(schema), 400)]
    assert all(set(value) == {"a b"} and len(value["a b"]) <= 20 for value in values)
    assert any(" " in value["a b"] for value in values) and any("世界" in value["a b"] for value in values)

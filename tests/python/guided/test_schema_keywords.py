"""Every keyword of JSON Schema is followed or refused by name."""

import json

import pytest
import small_tokenizers
from jsonschema import Draft202012Validator

STRING = {"type": "string"}


@pytest.fixture(scope="module")
def small_walker(make_walker, tmp_path_factory):
    """Tokens are bytes and a few words."""
    tokenizer = small_tokenizers.byte_level()
    directory = small_tokenizers.save(tokenizer, tmp_path_factory.mktemp("tokenizer"))
    return make_walker(directory, tokenizer.get_vocab_size(), "<|im_end|>")


@pytest.mark.parametrize(
    "schema, message",
    [
        ({"not": {}}, "#/not is not supported"),
        ({"if": {}, "then": {"type": "null"}}, "#/if is not supported"),
        ({"dependentRequired": {"a": ["b"]}}, "#/dependentRequired is not supported"),
        (
            {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}},
            "#/properties/a/uniqueItems is not supported",
        ),
        (
            {"$ref": "#/$defs/a", "$defs": {"a": {"type": "array", "contains": {}}}},
            "#/$defs/a/contains is not supported",
        ),
        ({"anyOf": [{"type": "integer"}], "minimum": 1}, "#/minimum is not supported beside anyOf"),
        ({"allOf": [{"minimum": 1}]}, "#/allOf/0/minimum needs a type beside it"),
        ({"allOf": [{"type": "integer"}, {"type": "number"}]}, "#/allOf of more than one schema is not supported"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "#/oneOf is supported where its schemas differ"),
        ({"enum": [1, 2], "type": "string"}, "#/enum has no value of the type beside it"),
        ({"const": "a", "minLength": 1}, "#/minLength is not supported beside const"),
        ({"type": "string", "format": "date", "pattern": "^2"}, "#/format is not supported beside pattern"),
        ({"type": "string", "format": "regex"}, '#/format "regex" is not supported'),
        ({"type": "string", "pattern": "a+", "maxLength": 3}, "#/maxLength is supported beside pattern where all"),
        ({"type": "string", "pattern": "(?=a)b"}, '#/pattern "(?=a)b": at character 3: lookahead is not supported'),
        ({"type": "number", "multipleOf": 0.5}, "#/multipleOf is not supported"),
        ({"type": "integer", "multipleOf": 3, "minimum": 1}, "#/multipleOf is supported without bounds"),
        ({"type": "number", "minimum": 1e-7}, "#/minimum is supported with at most six places"),
        ({"const": 12345678901234567890123}, "#/const has a number of 2^53 or more"),
        ({"type": "array", "minItems": 2, "items": False}, "#/minItems is more than the items that the schema allows"),
        (
            {"type": "object", "patternProperties": {"^a": STRING, "b$": {"type": "null"}, "^a?b": {}}},
            "applies to names that other schemas of this object apply to as well",
        ),
        (
            {"type": "object", "properties": {"abc": {}}, "patternProperties": {"b": {"type": "null"}}},
            "applies to names that other schemas of this object apply to as well",
        ),
        (
            {"type": "object", "patternProperties": {"^a": STRING}, "additionalProperties": {"type": "null"}},
            "#/additionalProperties is not supported beside patternProperties",
        ),
        (
            {"type": "object", "properties": {"a": {}}, "propertyNames": {"maxLength": 3}},
            "#/propertyNames is not supported beside properties or patternProperties",
        ),
        ({"type": "object", "propertyNames": {"type": "integer"}}, '#/propertyNames/type must be "string"'),
        (
            {"type": "object", "additionalProperties": True, "minProperties": 2},
            "#/minProperties is supported up to one more than the required properties",
        ),
        (
            {"type": "object", "required": ["a"], "additionalProperties": False},
            '#/required names "a", which must not be',
        ),
        ({"$ref": "other.json"}, "it must point into the schema"),
        ({"properties": {"a": {"$id": "x", "type": "null"}}}, "#/properties/a/$id is supported at the root only"),
        (False, "the guide must be a JSON object"),
        ({"items": False, "minItems": 1, "type": "array"}, "#/minItems is more"),
        ({"type": "text"}, '#/type has "text", which is no type'),
        ({"type": "string", "minLength": -1}, "#/minLength must be an integer, 0 or more"),
        ({"$ref": "#"}, "no text of the model's tokens follows it"),
    ],
    ids=str,
)
def test_what_would_be_followed_in_part_is_refused_by_name(small_walker, schema, message):
    assert message in small_walker.error("json_schema", json.dumps(schema))


LISTED = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": STRING}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "minItems": 1, "maxItems": 2},
        {"type": "object", "minProperties": 1, "maxProperties": 2},
        {"type": "object", "required": ["a"], "maxProperties": 1},
        {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "null"}}},
        {"$ref": "#/$defs/a~0b", "$defs": {"a~b": {"type": "null"}}},
        {"$ref": "#/$defs/a%20b%25", "$defs": {"a b%": {"type": "null"}}},
        {"anyOf": [{"$ref": "#/anyOf/1/items"}, {"type": "array", "items": {"type": "null"}, "maxItems": 2}]},
        {"enum": [1, "a", None], "type": ["string", "null"]},
        {"type": "string", "pattern": r'^say "hi"$'},
        {"type": "string", "pattern": r"^C:\\[a-z]{3}$"},
        {"type": "string", "pattern": r"^[\x01-\x1f\"\\]{1,4}$"},
        {"type": "string", "pattern": r"^[^a]{1,4}$"},
        {"type": "string", "pattern": "^[a-c]{2,3}$", "minLength": 2, "maxLength": 3},
        {"type": "string", "minLength": 2, "maxLength": 3},
        {"type": "object", "patternProperties": {r'^"[a-c]"$': {"type": "null"}}, "maxProperties": 2},
        {"type": "object", "patternProperties": {"^a[0-9]$": STRING, "^b[0-9]$": {"type": "null"}}, "maxProperties": 2},
        {"type": "object", "propertyNames": {"enum": ['a"b', "c\\d"]}, "maxProperties": 2},
        LISTED | {"properties": {"é": {"type": "integer"}}, "required": ["é"], "maxProperties": 3},
        LISTED | {"maxProperties": 3},
        {"type": "array", "prefixItems": [{"type": "null"}, {"type": "boolean"}], "maxItems": 1},
        {"type": "array", "prefixItems": [True, {"type": "null"}], "minItems": 2, "maxItems": 3},
        {"type": "integer", "minimum": 0.5, "exclusiveMaximum": 3},
        {"oneOf": [{"type": "object", "properties": {"k": {"const": kind}}, "required": ["k"]} for kind in "ab"]},
    ],
    ids=str,
)
def test_texts_are_valid(small_walker, schema):
    Draft202012Validator.check_schema(schema)
    for text in small_walker.texts("json_schema", json.dumps(schema), walks=8, max_tokens=20_000):
        Draft202012Validator(schema).validate(json.loads(text))


def test_a_listed_name_is_not_spelled_in_another_way(small_walker):
    """A further property that has the name of a listed one would have to follow that one's schema."""
    schema = {"type": "object", "properties": {"ab": {"type": "integer"}}, "additionalProperties": {"type": "null"}}
    for text in small_walker.texts("json_schema", json.dumps(schema), walks=40, max_tokens=20_000):
        names = [name for name, value in json.loads(text, object_pairs_hook=list) if value is None]
        assert "ab" not in names


def test_strings_hold_no_half_of_a_surrogate_pair(small_walker):
    for text in small_walker.texts("json_schema", '{"type": "string"}', walks=40, max_tokens=20_000):
        json.loads(text).encode()

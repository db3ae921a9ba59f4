"""The special tokens that tokenizer_config.json and special_tokens_map.json name, as transformers reads them."""

from typing import Any

from inflight.fields import Fields
from inflight.json_object import JsonObject

_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_EXTRA = "extra_special_tokens"  # a model's own: a list, or an object of names


def named_special_tokens(config: JsonObject, token_map: JsonObject) -> dict[str, str]:
    """bos_token, eos_token, … and a model's own, each with its text: what a chat template may use by its name.

    config: tokenizer_config.json. token_map: special_tokens_map.json, which counts only where the former has no
    added_tokens_decoder, and first then. Raises InflightError for one that is not a token.
    """
    tokens: dict[str, str] = {}
    for fields in [config] if "added_tokens_decoder" in config else [config, token_map]:
        for name in fields.values:
            if name in fields and (name in _NAMES or (name.endswith("_token") and _is_token(fields.values[name]))):
                tokens[name] = _text(fields, name)
        if isinstance(fields.values.get(_EXTRA), dict):
            extra = fields.object(_EXTRA)
            tokens |= {name: _text(extra, name) for name in extra.values}
    return tokens


def _is_token(value: Any) -> bool:
    return isinstance(value, (str, dict))  # add_bos_token is neither


def _text(fields: Fields, name: str) -> str:
    """A token is written as its text, or as an object that holds it."""
    value = fields.values[name]
    text = value.get("content") if isinstance(value, dict) else value
    if not isinstance(text, str):
        fields.fail(name, "the text of a token, or an object with it as its content")
    return text

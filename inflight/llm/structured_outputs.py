"""What a generated text must look like, in the names that vLLM's users know."""

import json as json_format
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from inflight.errors import InflightError
from inflight.llm.argument_types import require_flag, require_text, require_texts
from inflight.llm.option_names import known_options_only


@known_options_only({})
@dataclass(frozen=True)
class StructuredOutputsParams:
    """Exactly one of these.

    json: a JSON schema, as an object or as text. regex: a regular expression that the whole text matches. choice:
    strings, one of which is the text. grammar: EBNF as xgrammar and llama.cpp's GBNF write it; its root rule is `root`.
    json_object: True is any JSON object. The schema, expression or grammar itself is checked when a request starts.
    """

    json: str | Mapping[str, Any] | None = None
    regex: str | None = None
    choice: Sequence[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None

    def __post_init__(self):
        if self.json_object is not None:
            require_flag("json_object", self.json_object)
        given = [field.name for field in fields(self) if getattr(self, field.name) not in (None, False)]
        if len(given) != 1:
            names = ", ".join(field.name for field in fields(self))
            found = " and ".join(given) or "none of them"
            raise InflightError(f"structured_outputs has {found}; it must have exactly one of {names}")
        if isinstance(self.json, Mapping):
            require_text("json", _dump("json", self.json))
        elif self.json is not None:
            require_text("json", self.json, "a JSON schema: a dict or a str")
        if self.choice is not None:
            require_texts("choice", self.choice)
            if not len(self.choice):
                raise InflightError("choice is empty; it must hold at least one string")
        for name in ("regex", "grammar"):
            if getattr(self, name) is not None:
                require_text(name, getattr(self, name))

    @property
    def native_guide(self) -> tuple[str, str]:
        """`guided_decoding` of inflight._native.BatchManager.submit: its type and guide."""
        if self.json is not None:
            return "json_schema", self.json if isinstance(self.json, str) else _dump("json", self.json)
        if self.regex is not None:
            return "regex", self.regex
        if self.choice is not None:
            return "choice", json_format.dumps(list(self.choice), ensure_ascii=False)
        if self.grammar is not None:
            return "grammar", self.grammar
        return "json", ""


GuidedDecodingParams = StructuredOutputsParams  # vLLM's name before 0.12


def _dump(name: str, schema: Mapping[str, Any]) -> str:
    try:
        return json_format.dumps(dict(schema), ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InflightError(f"{name} cannot be written as JSON: {error}") from None

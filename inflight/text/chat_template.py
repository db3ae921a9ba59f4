"""Chat templates as Hugging Face models ship them: jinja2, sandboxed, rendered as transformers does.

https://huggingface.co/docs/transformers/chat_templating
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from inflight.errors import InflightError


class ChatTemplate:
    """A compiled template. `special_tokens` (bos_token, eos_token, …) are variables that it may use."""

    def __init__(self, source: str, special_tokens: Mapping[str, str], path: str):
        """Raises InflightError, naming `path`, when the template has a syntax error."""
        self._path = path
        self._special_tokens = dict(special_tokens)
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationBlock]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = lambda layout: datetime.now().strftime(layout)
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise InflightError(f"{path}: the chat template is not valid: {error}") from error

    def render(
        self,
        messages: Sequence[Mapping],
        tools: Sequence[Mapping] | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """The prompt. variables: more that the template may use. Raises InflightError with the template's own message
        when it rejects the messages."""
        try:
            return self._template.render(
                {
                    **self._special_tokens,
                    "documents": None,  # transformers defines it for every template
                    **variables,
                    "messages": messages,
                    "tools": tools,
                    "add_generation_prompt": add_generation_prompt,
                }
            )
        except (TemplateError, TypeError, ValueError, AttributeError, KeyError) as error:
            raise InflightError(f"{self._path}: the chat template rejects these messages: {error}") from error


class _GenerationBlock(Extension):
    """`{% generation %}…{% endgeneration %}` marks the assistant's words for training; here it is just its body."""

    tags = {"generation"}

    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str):
    raise TemplateError(message)

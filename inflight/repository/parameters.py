"""The parameters of a filled config.pbtxt, as a Python model finds them in its `model_config`."""

from collections.abc import Mapping
from contextlib import suppress

from inflight.errors import InflightError
from inflight.repository.hub_cache import tokenizer_directory
from inflight.text import Tokenizer
from inflight.text.prompt_encoder import PromptLimits
from inflight.text.word_limits import WordLimits

_TRUE = ("true", "1", "t", "y", "yes")
_FALSE = ("false", "0", "f", "n", "no")


def is_unfilled(value: str) -> bool:
    """Whether a parameter's value stands for its default: empty, or a template variable left in place."""
    return value == "" or value.startswith("${")


def require_batches(model_config: Mapping) -> None:
    """Raises InflightError for max_batch_size 0, with which tensors would come without their batch dimension."""
    if model_config["max_batch_size"] == 0:
        raise InflightError(
            f"model {model_config.get('name')}: max_batch_size (${{triton_max_batch_size}}) is 0; fill in at least 1"
        )


def text_parameter(model_config: Mapping, name: str, default: str | None = None) -> str:
    """The value of a parameter. Raises InflightError when it is unfilled and there is no default."""
    value = model_config.get("parameters", {}).get(name, {}).get("string_value", "")
    if not is_unfilled(value):
        return value
    if default is None:
        raise InflightError(
            f"model {model_config.get('name')}: parameter {name} is required; fill it in the model's config.pbtxt"
        )
    return default


def flag_parameter(model_config: Mapping, name: str, default: bool) -> bool:
    """A parameter that is true or false, in any of upstream's spellings. Raises InflightError for another value."""
    value = text_parameter(model_config, name, default=str(default)).lower()
    if value not in _TRUE + _FALSE:
        raise InflightError(
            f"model {model_config.get('name')}: parameter {name} is {value!r}; it takes {', '.join(_TRUE + _FALSE)}"
        )
    return value in _TRUE


def prompt_limits_parameters(model_config: Mapping, engine_dir: str) -> PromptLimits:
    """What parameter max_text_bytes and the engine, if there is one that says so, allow. Raises InflightError."""
    from inflight.repository.engine_values import engine_limit  # the native module, which not every model needs

    text = text_parameter(model_config, "max_text_bytes", default="0")
    if not text.isdecimal():
        raise InflightError(
            f"model {model_config.get('name')}: parameter max_text_bytes is {text!r}; it takes a number of bytes, or 0"
            " for what the engine can take"
        )
    max_tokens = None
    if engine_dir:
        with suppress(InflightError):  # TensorRT-LLM's older engines give the lengths of prompt and output apart
            max_tokens = engine_limit(engine_dir, "max_seq_len")
    return PromptLimits(max_tokens, int(text) or None)


def word_limits_parameters(model_config: Mapping) -> WordLimits:
    """max_words and max_words_length. Raises InflightError for what is no number of words or bytes."""
    given = {name: text_parameter(model_config, name, default="") for name in ("max_words", "max_words_length")}
    for name, value in given.items():
        if value and not value.isdecimal():
            raise InflightError(
                f"model {model_config.get('name')}: parameter {name} is {value!r}; it must be an integer, 0 or more"
            )
    return WordLimits(**{name: int(value) for name, value in given.items() if value})


def tokenizer_parameter(model_config: Mapping) -> Tokenizer:
    """The tokenizer that parameter tokenizer_dir gives: a directory, or a hub id. Raises InflightError."""
    directory = tokenizer_directory(text_parameter(model_config, "tokenizer_dir"))
    try:
        return Tokenizer(directory)
    except InflightError as error:
        raise InflightError(
            f"model {model_config.get('name')}: parameter tokenizer_dir (${{tokenizer_dir}}): {error}"
        ) from error

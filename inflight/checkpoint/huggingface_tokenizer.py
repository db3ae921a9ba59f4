"""The tokenizer of a Hugging Face directory, for the checkpoint's tokenizer/ directory."""

import os
import shutil
from pathlib import Path

from inflight.errors import InflightError

_FAST = "tokenizer.json"
_COMPANIONS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)
_SLOW = ("tokenizer.model", "vocab.json")


def save_tokenizer(source: Path, directory: Path, vocab_size: int) -> None:
    """Copies the fast tokenizer and its companions; converts a slow tokenizer with transformers.

    Raises InflightError when there is none, or when it yields ids beyond `vocab_size`.
    """
    if (source / _FAST).is_file():
        shutil.copyfile(source / _FAST, directory / _FAST)
    elif any((source / name).is_file() for name in _SLOW):
        _convert_slow(source, directory)
    else:
        raise InflightError(f"{source} has no tokenizer: expected {_FAST} or one of {', '.join(_SLOW)}")
    for name in _COMPANIONS:
        if (source / name).is_file():
            shutil.copyfile(source / name, directory / name)
    if (source / "additional_chat_templates").is_dir():
        shutil.copytree(source / "additional_chat_templates", directory / "additional_chat_templates")
    check_vocabulary(directory, vocab_size)


def check_vocabulary(directory: Path, vocab_size: int) -> None:
    """Refuses a tokenizer.json whose ids the model's embedding does not hold. Raises InflightError."""
    from tokenizers import Tokenizer

    path = directory / _FAST
    if not path.is_file():
        raise InflightError(f"{directory} has no {_FAST}")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the tokenizers library raises plain Exception
        raise InflightError(f"{path} is not a tokenizer: {error}") from error
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= vocab_size:
        raise InflightError(
            f"{path}: token ids go up to {largest}, the model's vocabulary has {vocab_size}: "
            "this tokenizer belongs to another model"
        )


def _convert_slow(source: Path, directory: Path) -> None:
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import AutoTokenizer

    try:
        AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False).save_pretrained(directory)
    except Exception as error:  # transformers and its optional parsers raise anything
        raise InflightError(
            f"cannot convert the tokenizer in {source} to {_FAST}: {error} "
            "(tokenizer.model needs `pip install sentencepiece protobuf`)"
        ) from error
    if not (directory / _FAST).is_file():
        raise InflightError(f"the tokenizer in {source} has no fast form ({_FAST}), which serving needs")

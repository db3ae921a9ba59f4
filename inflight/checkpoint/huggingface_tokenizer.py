"""The tokenizer of a Hugging Face directory, for the checkpoint's tokenizer/ directory."""

import os
import shutil
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

from inflight.checkpoint.sentencepiece_bpe import (
    PieceType,
    add_typed_tokens,
    build_sentencepiece_bpe,
    start_and_end,
)
from inflight.checkpoint.sentencepiece_model import SentencePieceModel
from inflight.errors import InflightError
from inflight.json_object import JsonObject

_FAST = "tokenizer.json"
_COMPANIONS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)
_SENTENCEPIECE = "tokenizer.model"
_BYTE_LEVEL = "vocab.json"


def save_tokenizer(source: Path, directory: Path, vocab_size: int) -> None:
    """Copies the fast tokenizer and its companions, or makes it from a slow tokenizer's files.

    Raises InflightError when there is none, or when it yields ids beyond `vocab_size`.
    """
    if (source / _FAST).is_file():
        shutil.copyfile(source / _FAST, directory / _FAST)
    elif (source / _SENTENCEPIECE).is_file():
        _from_sentencepiece(source).save(str(directory / _FAST))
    elif (source / _BYTE_LEVEL).is_file():
        _from_transformers(source, directory)
    else:
        raise InflightError(f"{source} has no tokenizer: expected {_FAST}, {_SENTENCEPIECE} or {_BYTE_LEVEL}")
    for name in _COMPANIONS:
        if (source / name).is_file():
            shutil.copyfile(source / name, directory / name)
    if (source / "additional_chat_templates").is_dir():
        shutil.copytree(source / "additional_chat_templates", directory / "additional_chat_templates")
    check_vocabulary(directory, vocab_size)


def check_vocabulary(directory: Path, vocab_size: int) -> None:
    """Refuses a tokenizer.json whose ids the model's embedding does not hold. Raises InflightError."""
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


def _from_sentencepiece(source: Path) -> Tokenizer:
    """The tokenizer that transformers' slow LlamaTokenizer is: pieces, and the tokens that the configuration adds."""
    model = SentencePieceModel.load(source / _SENTENCEPIECE)
    path = source / "tokenizer_config.json"
    config = JsonObject.load(path) if path.is_file() else JsonObject({}, str(path))
    unknown = model.tokens[model.types.index(PieceType.UNKNOWN)] if PieceType.UNKNOWN in model.types else None
    tokenizer = build_sentencepiece_bpe(model.tokens, model.scores, model.types, unknown, model.adds_space)
    add_typed_tokens(tokenizer, model.tokens, model.types)
    _add_tokens(tokenizer, config)
    start = _special_token(tokenizer, config, "bos_token", "<s>") if config.values.get("add_bos_token", True) else None
    end = _special_token(tokenizer, config, "eos_token", "</s>") if config.values.get("add_eos_token", False) else None
    tokenizer.post_processor = start_and_end(tokenizer, start, end)
    return tokenizer


def _add_tokens(tokenizer: Tokenizer, config: JsonObject) -> None:
    """Adds added_tokens_decoder's: {"32000": {"content": "<|im_end|>", "special": true, …}, …}."""
    if "added_tokens_decoder" not in config:
        return
    entries = config.object("added_tokens_decoder")
    for key in sorted(entries.values, key=lambda key: (len(key), key)):
        content = entries.object(key).values.get("content")
        if not isinstance(content, str):
            entries.fail(key, "an object with the token as its content")
        tokenizer.add_tokens(
            [AddedToken(content, normalized=False, special=bool(entries.object(key).values.get("special")))]
        )
        if str(tokenizer.token_to_id(content)) != key:
            entries.fail(key, f"the id that {content!r} has in {_SENTENCEPIECE} ({tokenizer.token_to_id(content)})")


def _special_token(tokenizer: Tokenizer, config: JsonObject, name: str, default: str) -> str:
    """tokenizer_config.json spells a special token as text or as an object."""
    token = config.values.get(name, default)
    token = token.get("content") if isinstance(token, dict) else token
    if not isinstance(token, str) or tokenizer.token_to_id(token) is None:
        raise InflightError(f"{config.origin}: {name} is {token!r}; expected a token of {_SENTENCEPIECE}")
    return token


def _from_transformers(source: Path, directory: Path) -> None:
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # its note that torch is missing
    from transformers import AutoTokenizer

    try:
        AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False).save_pretrained(directory)
    except Exception as error:  # transformers raises what its tokenizers raise
        raise InflightError(f"cannot convert the tokenizer in {source} to {_FAST}: {error}") from error

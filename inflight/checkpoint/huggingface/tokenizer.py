"""The tokenizer of a Hugging Face directory, for the checkpoint's tokenizer/ directory."""

import shutil
from pathlib import Path

from tokenizers import Tokenizer, pre_tokenizers

from inflight.checkpoint.config import MODEL_TYPES
from inflight.checkpoint.declared_tokens import ADDED_TOKENS, CONFIG, SPECIAL_TOKENS, fold_declared_tokens
from inflight.checkpoint.quiet_transformers import quiet_transformers
from inflight.checkpoint.sentencepiece.bpe import (
    SPACE,
    PieceType,
    add_typed_tokens,
    build_sentencepiece_bpe,
    start_and_end,
)
from inflight.checkpoint.sentencepiece.model import SentencePieceModel
from inflight.errors import InflightError
from inflight.json_object import JsonObject
from inflight.text.tokenizer import Tokenizer as ServedTokenizer
from inflight.text.tokenizer_file import FILE_NAME, library_errors, load_tokenizer

_COMPANIONS = (CONFIG, SPECIAL_TOKENS, ADDED_TOKENS, "chat_template.jinja", "chat_template.json")
_SENTENCEPIECE = "tokenizer.model"
_BYTE_LEVEL = "vocab.json"


def save_tokenizer(source: Path, directory: Path, vocab_size: int) -> None:
    """Writes tokenizer.json, from whichever files the tokenizer comes in, with every declared token, and copies the
    files that name its special tokens and hold its chat template.

    Raises InflightError when there is none, when it is damaged, or when it is of another model than one with
    `vocab_size` tokens.
    """
    if (source / FILE_NAME).is_file():
        shutil.copyfile(source / FILE_NAME, directory / FILE_NAME)
    elif (source / _SENTENCEPIECE).is_file():
        _from_sentencepiece(source).save(str(directory / FILE_NAME))
    elif (source / _BYTE_LEVEL).is_file():
        _from_transformers(source, directory)
    else:
        raise InflightError(f"{source} has no tokenizer: expected {FILE_NAME}, {_SENTENCEPIECE} or {_BYTE_LEVEL}")
    for name in _COMPANIONS:
        if (source / name).is_file():
            shutil.copyfile(source / name, directory / name)
    if (source / "additional_chat_templates").is_dir():
        shutil.copytree(source / "additional_chat_templates", directory / "additional_chat_templates")
    try:
        fold_declared_tokens(directory)
        if not (source / FILE_NAME).is_file() and (source / _SENTENCEPIECE).is_file():
            _surround_texts(directory)
        check_tokenizer(directory, vocab_size)
    except InflightError as error:  # the copies are gone when the user reads it
        raise InflightError(str(error).replace(str(directory), str(source))) from error


def check_tokenizer(directory: Path, vocab_size: int) -> None:
    """Refuses a tokenizer that cannot be served, or that is another model's: one with more tokens than the embedding.

    Only added tokens may lie beyond it: a `<pad>`, say, that was added without a row of its own, as Llama 2's
    derivatives have it. A request with such an id is refused when it comes. Raises InflightError.
    """
    ServedTokenizer(directory)
    path = directory / FILE_NAME
    largest = max(load_tokenizer(path).get_vocab(with_added_tokens=False).values(), default=-1)
    if largest >= vocab_size:
        raise InflightError(
            f"{path}: token ids go up to {largest}, the model's vocabulary has {vocab_size}: "
            "this tokenizer belongs to another model"
        )


def _from_sentencepiece(source: Path) -> Tokenizer:
    """The pieces as transformers' LlamaTokenizer takes them: `legacy` puts a space before every stretch of text between
    added tokens, otherwise only the start of a text gets one."""
    model = SentencePieceModel.load(source / _SENTENCEPIECE)
    config = JsonObject.load_optional(source / CONFIG)
    unknown = model.tokens[model.types.index(PieceType.UNKNOWN)] if PieceType.UNKNOWN in model.types else None
    adds_space = config.boolean("add_prefix_space", default=model.adds_space)
    with library_errors(f"{source / _SENTENCEPIECE} is not a model that the tokenizers library takes"):
        tokenizer = build_sentencepiece_bpe(model.tokens, model.scores, model.types, unknown, adds_space)
    where = "always" if config.boolean("legacy", default=False) else "first"
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, where if adds_space else "never", split=False)
    add_typed_tokens(tokenizer, model.tokens, model.types)
    return tokenizer


def _surround_texts(directory: Path) -> None:
    """Gives the tokenizer the start and end tokens that tokenizer_config.json asks for, as transformers does where no
    tokenizer.json says it."""
    tokenizer = load_tokenizer(directory / FILE_NAME)
    config = JsonObject.load_optional(directory / CONFIG)
    special = {"bos_token": "<s>", "eos_token": "</s>"} | ServedTokenizer(directory).special_tokens
    added = []
    for flag, name in (("add_bos_token", "bos_token"), ("add_eos_token", "eos_token")):
        wanted = config.boolean(flag, default=False)
        if wanted and tokenizer.token_to_id(special[name]) is None:
            config.fail(flag, f"false, as there is no token {special[name]!r} ({name})")
        added.append(special[name] if wanted else None)
    tokenizer.post_processor = start_and_end(tokenizer, *added)
    tokenizer.save(str(directory / FILE_NAME))


def _from_transformers(source: Path, directory: Path) -> None:
    model_type = JsonObject.load(source / "config.json").choice("model_type", MODEL_TYPES)
    with quiet_transformers(), library_errors(f"cannot convert the tokenizer in {source} to {FILE_NAME}"):
        from transformers import AutoConfig, AutoTokenizer

        config = AutoConfig.for_model(model_type)  # all that the tokenizer's class follows from
        tokenizer = AutoTokenizer.from_pretrained(source, config=config, local_files_only=True, trust_remote_code=False)
        tokenizer.save_pretrained(directory)

"""Whether the tokenizers of a repository's models are the engine's own: another one of a fitting size would load, and
answer nonsense."""

import filecmp
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from inflight.errors import InflightError
from inflight.repository.engine_values import engine_vocab_size
from inflight.text.tokenizer_file import FILE_NAME, load_tokenizer

_GGUF_PADDING = re.compile(r"\[PAD(\d+)\]")  # fills the vocabulary up to the embedding's size, in GGUF files alone


def foreign_tokenizers(engine: str, users: Mapping[Path, str]) -> Iterator[str]:
    """What is wrong with the tokenizers that models use with `engine`.

    users: config.pbtxt → tokenizer_dir. A directory without a tokenizer.json is left to the model that needs it. The
    tokenizers must fit the engine's vocabulary, and be that of the engine's tokenizer/; where there is none, as with
    TensorRT-LLM, they must be the same. Raises InflightError for a file that is not a tokenizer.
    """
    files = {config: file for config, directory in users.items() if (file := Path(directory) / FILE_NAME).is_file()}
    reference, owner = Path(engine) / "tokenizer" / FILE_NAME, f"the engine {engine}"
    if reference.is_file():
        files = {config: file for config, file in files.items() if not _same_content(file, reference)}
    elif files:
        owner, reference = next(iter(files.items()))
    if not files:
        return
    token_ids = {file: _token_ids(file) for file in {reference, *files.values()}}
    vocab_size = engine_vocab_size(engine)
    for config, file in files.items():
        size = 1 + max(_token_ids(file, with_added_tokens=False).values(), default=-1)
        if size > vocab_size:  # it may be larger than the tokenizer's (padding); smaller by added tokens only
            yield (
                f"{config}: the tokenizer {file} has {size} tokens, but the engine {engine}/config.json has a "
                f"vocabulary of {vocab_size}: they belong to different models; set ${{tokenizer_dir}} to the tokenizer "
                "of the engine's own model"
            )
        elif difference := _difference(token_ids[file], token_ids[reference]):
            yield (
                f"{config}: parameter tokenizer_dir (${{tokenizer_dir}}) gives {file}, another tokenizer than "
                f"{reference} of {owner}: {difference}; fill in the tokenizer of the engine's own model"
            )


def tokenizer_difference(engine: str | Path, other: str | Path) -> str | None:
    """How the token ids of two engines' tokenizers differ; None where they do not, or where one has no tokenizer.

    Raises InflightError for a file that is not a tokenizer.
    """
    files = [Path(directory) / "tokenizer" / FILE_NAME for directory in (engine, other)]
    if not all(file.is_file() for file in files) or _same_content(*files):
        return None
    return _difference(*map(_token_ids, files))


def _difference(ours: Mapping[str, int], theirs: Mapping[str, int]) -> str | None:
    """How the token ids of two tokenizers differ, None where they do not."""
    if ours == theirs:
        return None
    _, token = min((token_id, token) for token, token_id in ours.items() ^ theirs.items())
    return (
        f"they have {len(ours)} and {len(theirs)} tokens, and the first that differs, {token!r}, is "
        f"{_place(token, ours)} and {_place(token, theirs)}"
    )


def _same_content(file: Path, reference: Path) -> bool:
    return file.samefile(reference) or filecmp.cmp(file, reference, shallow=False)


def _place(token: str, token_ids: Mapping[str, int]) -> str:
    return f"token {token_ids[token]}" if token in token_ids else "none"


def _token_ids(file: Path, with_added_tokens: bool = True) -> dict[str, int]:
    """The vocabulary."""
    try:
        token_ids = load_tokenizer(file).get_vocab(with_added_tokens=with_added_tokens)
    except InflightError as error:
        raise InflightError(f"parameter tokenizer_dir (${{tokenizer_dir}}): {error}") from error
    return {token: token_id for token, token_id in token_ids.items() if not _is_padding(token, token_id)}


def _is_padding(token: str, token_id: int) -> bool:
    padding = _GGUF_PADDING.fullmatch(token) if token.startswith("[PAD") else None
    return padding is not None and int(padding[1]) == token_id

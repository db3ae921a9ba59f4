"""Added and special tokens that are declared outside of tokenizer.json, brought into it.

transformers finds them in tokenizer_config.json (added_tokens_decoder, bos_token and its like, extra_special_tokens,
additional_special_tokens), special_tokens_map.json and added_tokens.json. What is served reads tokenizer.json alone.
"""

from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer

from inflight.checkpoint.quiet_transformers import quiet_transformers
from inflight.errors import InflightError
from inflight.fields import Fields
from inflight.json_object import JsonObject
from inflight.text.tokenizer_file import FILE_NAME, library_errors, load_tokenizer

CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS = "special_tokens_map.json"
ADDED_TOKENS = "added_tokens.json"


def fold_declared_tokens(directory: Path) -> None:
    """Rewrites directory/tokenizer.json where the files beside it declare tokens that it lacks or has otherwise.

    Raises InflightError when a file is malformed, or gives a token another id than the tokenizer does.
    """
    path = directory / FILE_NAME
    declared = list(_declared_ids(directory))
    own = load_tokenizer(path)
    folded = _as_transformers_reads_it(directory)
    for fields, key, token, token_id in declared:
        if folded.token_to_id(token) != token_id:
            fields.fail(key, f"the id that {token!r} has in the tokenizer ({folded.token_to_id(token)})")
    if _states(folded) != _states(own):
        folded.save(str(path))


def _as_transformers_reads_it(directory: Path) -> Tokenizer:
    files = f"{CONFIG}, {SPECIAL_TOKENS} or {ADDED_TOKENS} with {FILE_NAME}"
    with quiet_transformers(), library_errors(f"{directory}: transformers does not take {files}"):
        from transformers import PreTrainedTokenizerFast

        tokenizer = PreTrainedTokenizerFast.from_pretrained(directory, local_files_only=True)
    if tokenizer.split_special_tokens:
        raise InflightError(
            f"{directory / CONFIG}: split_special_tokens is true; expected false: text that spells a special token "
            "is that token here"
        )
    return tokenizer.backend_tokenizer


def _declared_ids(directory: Path) -> Iterator[tuple[Fields, str, str, int]]:
    """Each token that has its id declared: the file's fields, the key there, the token and the id."""
    config = JsonObject.load_optional(directory / CONFIG)
    if "added_tokens_decoder" in config:  # {"32000": {"content": "<|im_end|>", "special": true, …}, …}
        decoder = config.object("added_tokens_decoder")
        for key in decoder.values:
            if not (key.isascii() and key.isdecimal()):
                decoder.fail(key, "a token id as its key")
            yield decoder, key, decoder.object(key).text("content"), int(key)
    else:  # as in transformers, the older file counts only where the newer one is silent
        added = JsonObject.load_optional(directory / ADDED_TOKENS)  # {"<|im_end|>": 32000, …}
        for token in added.values:
            yield added, token, token, added.integer(token)


def _states(tokenizer: Tokenizer) -> dict[int, tuple]:
    """Every added token with its options."""
    return {
        token_id: tuple(sorted(token.__getstate__().items()))
        for token_id, token in tokenizer.get_added_tokens_decoder().items()
    }

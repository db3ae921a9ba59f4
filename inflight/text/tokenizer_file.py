"""tokenizer.json, read by the tokenizers library."""

from pathlib import Path

import tokenizers

from inflight.errors import InflightError, cause

FILE_NAME = "tokenizer.json"


def load_tokenizer(path: Path) -> tokenizers.Tokenizer:
    """Raises InflightError for a file that the tokenizers library does not read."""
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except BaseException as error:
        raise_unless_library_error(error)
        raise InflightError(f"{path} is not a tokenizer that the tokenizers library reads: {cause(error)}") from error


def raise_unless_library_error(error: BaseException) -> None:
    """Raises what did not come from the tokenizers library, which raises bare Exception, and where its Rust code
    panics a BaseException of its own."""
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error

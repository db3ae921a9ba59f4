"""tokenizer.json, read by the tokenizers library."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tokenizers

from inflight.errors import InflightError, cause

FILE_NAME = "tokenizer.json"


def load_tokenizer(path: Path) -> tokenizers.Tokenizer:
    """Raises InflightError for a file that the tokenizers library does not read."""
    with library_errors(f"{path} is not a tokenizer that the tokenizers library reads"):
        return tokenizers.Tokenizer.from_file(str(path))


@contextmanager
def library_errors(what: str) -> Iterator[None]:
    """Makes an InflightError that begins with `what` of what the tokenizers library raises in the block: bare
    Exception, and where its Rust code panics a BaseException, whose backtrace on stderr is left out."""
    with tempfile.TemporaryFile() as diverted:
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(diverted.fileno(), 2)
        panicked = False
        try:
            yield
        except InflightError:
            raise
        except BaseException as error:
            panicked = is_panic(error)
            if not panicked and not isinstance(error, Exception):
                raise
            raise InflightError(f"{what}: {cause(error)}") from error
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            if not panicked:
                diverted.seek(0)
                os.write(2, diverted.read())


def is_panic(error: BaseException) -> bool:
    """Whether Rust code panicked; the class of that is in no module to import."""
    return type(error).__name__ == "PanicException"

import os
from pathlib import Path

import pytest

BUILD = os.environ.get("INFLIGHT_BUILD_DIR")  # set by `make test`; a CMake build with INFLIGHT_BUILD_TESTS=ON
PATIENCE = 10  # seconds that a trace may take


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory) -> Path:
    """Of the traces' model: an end id, the letters a to r, and one that is no text."""
    from tokenizers import Tokenizer, decoders, models

    vocabulary = {"<end>": 0, **{chr(ord("a") + i): i + 1 for i in range(18)}, "<pad>": 19}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.add_special_tokens(["<end>", "<pad>"])
    tokenizer.decoder = decoders.Fuse()
    directory = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory


@pytest.fixture(scope="session")
def replayer(tokenizer_dir):
    if not BUILD:
        pytest.skip("INFLIGHT_BUILD_DIR names no CMake build: run `make test`")
    from trace_replayer import Replayer

    replayer = Replayer(Path(BUILD) / "tests/cpp/trace_replay", tokenizer_dir, PATIENCE)
    yield replayer
    print("\noracle:", dict(replayer.seen))
    assert replayer.close() == ""

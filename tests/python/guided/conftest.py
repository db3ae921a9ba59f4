import os
from pathlib import Path

import pytest

BUILD = os.environ.get("INFLIGHT_BUILD_DIR")  # set by `make test`; a CMake build with INFLIGHT_BUILD_TESTS=ON


@pytest.fixture(scope="session")
def make_walker():
    from guided_walker import Walker

    if not BUILD:
        pytest.skip("INFLIGHT_BUILD_DIR names no CMake build: run `make test`")
    walkers = []

    def make(*arguments) -> Walker:
        walkers.append(Walker(Path(BUILD) / "tests/cpp/guided_walk", *arguments))
        return walkers[-1]

    yield make
    for walker in walkers:
        walker.close()


@pytest.fixture(scope="session")
def walker(make_walker, smollm2_engine):
    """Byte-level, 49152 tokens."""
    return make_walker(smollm2_engine() / "tokenizer", 49152, "<|im_end|>")

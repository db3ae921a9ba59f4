import pytest

from inflight import _native
from inflight.llm import LLM


@pytest.fixture(scope="package")
def engine_dir(tiny_engine):
    return tiny_engine("llama", max_batch_size=8, max_num_tokens=64)


@pytest.fixture(scope="package")
def llm(engine_dir):
    with LLM(engine_dir, num_threads=1) as llm:
        yield llm


@pytest.fixture
def manager(engine_dir):
    with _native.BatchManager(engine_dir, num_threads=1) as manager:
        yield manager

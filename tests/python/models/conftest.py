"""A server whose tensorrt_llm is a Python model that answers with the prompt's own tokens."""

import shutil
from pathlib import Path

import pytest
from stub_engine import write_engine


@pytest.fixture(scope="session")
def stub_engine(tmp_path_factory) -> Path:
    return write_engine(tmp_path_factory.mktemp("stub") / "engine")


@pytest.fixture(scope="session")
def echo_server(stub_engine, tmp_path_factory):
    from inflight.launcher.server import TritonServer
    from inflight.repository.generate import generate_repository

    repository = tmp_path_factory.mktemp("echo") / "repository"
    generate_repository(stub_engine, repository, triton_backend="python")
    shutil.copy(Path(__file__).parent / "echo_model.py", repository / "tensorrt_llm" / "1" / "model.py")
    with TritonServer(repository) as server:
        yield server

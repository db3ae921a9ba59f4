"""Checkpoints to build engines from."""

import shutil

import pytest

from inflight.checkpoint.convert import convert_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tiny_directory, tmp_path_factory):
    """A float32 checkpoint of the tiny llama."""
    out = tmp_path_factory.mktemp("checkpoint") / "llama"
    convert_checkpoint(tiny_directory("llama"), out, progress=False)
    return out


@pytest.fixture
def checkpoint_copy(checkpoint, tmp_path):
    """One to damage."""
    return shutil.copytree(checkpoint, tmp_path / "checkpoint")

"""What people have at hand that is no model yet."""

import json
import shutil

import pytest

from inflight.checkpoint.convert import convert_checkpoint
from inflight.errors import InflightError

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def refused(source, tmp_path, message):
    with pytest.raises(InflightError, match=message):
        convert_checkpoint(source, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "model.gguf"])
def test_a_git_lfs_pointer(tiny_directory, tmp_path, name):
    source = shutil.copytree(tiny_directory("llama"), tmp_path / "source")
    (source / name).write_text(POINTER)
    refused(source, tmp_path, f"{name} is a Git LFS pointer .*git lfs pull")
    refused(source / name, tmp_path, f"{name} is a Git LFS pointer")


@pytest.mark.parametrize("config", [json.dumps({"base_model_name_or_path": "some/base"}), "{", "[]"])
def test_a_lora_adapter(tmp_path, config):
    source = tmp_path / "adapter"
    source.mkdir()
    (source / "adapter_config.json").write_text(config)
    (source / "adapter_model.safetensors").write_bytes(b"")
    base = "some/base" if "some" in config else "its base model"
    refused(source, tmp_path, f"adapter is a LoRA adapter of {base}: merge the two")


def test_a_file_of_weights_alone(tiny_directory, tmp_path):
    refused(tiny_directory("llama") / "model.safetensors", tmp_path, "holds weights alone: give the directory")
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK")
    refused(tmp_path / "pytorch_model.bin", tmp_path, "is PyTorch's: give a directory that save_pretrained wrote")


def test_weights_of_another_name(tiny_directory, tmp_path):
    source = shutil.copytree(tiny_directory("llama"), tmp_path / "source")
    (source / "model.safetensors").rename(source / "llama.safetensors")
    refused(source, tmp_path, "but llama.safetensors: if that holds the whole model, name it model.safetensors")
    shutil.copy(source / "llama.safetensors", source / "more.safetensors")
    refused(source, tmp_path, "has 2 safetensors files, but no model.safetensors.index.json")

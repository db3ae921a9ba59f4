"""What people have at hand that is no model yet, and what makes it one."""

import json
from pathlib import Path

from inflight.errors import InflightError

_LFS_START = b"version https://git-lfs.github.com/spec/"
_LFS_SIZE = 1024  # a pointer is shorter
_PYTORCH = (".bin", ".pt", ".pth", ".ckpt")
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def refuse_pointers(path: Path) -> None:
    """Raises InflightError for a Git LFS pointer, or a directory with one in the place of a file that is needed."""
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.suffix in (".json", ".safetensors", ".gguf", ".model", ".jinja"):
            _refuse_pointer(file)


def refuse_what_is_no_model(path: Path) -> None:
    """Raises InflightError for a LoRA adapter and for weights alone, or of a name that nobody looks for."""
    if path.is_dir():
        _refuse_adapter(path)
        _refuse_other_weights(path)
    elif path.is_file():
        if path.suffix == ".safetensors":
            raise InflightError(f"{path} holds weights alone: give the directory with its config.json and tokenizer")
        if path.suffix in _PYTORCH:
            raise InflightError(f"{path} is PyTorch's: give a directory that save_pretrained wrote, with safetensors")


def _refuse_pointer(file: Path) -> None:
    try:
        if not file.is_file() or file.stat().st_size > _LFS_SIZE:
            return
        with file.open("rb") as opened:
            start = opened.read(len(_LFS_START))
    except OSError:  # whoever reads it says so
        return
    if start == _LFS_START:
        raise InflightError(
            f"{file} is a Git LFS pointer in the place of the file: run `git lfs pull` in its directory, or download "
            "the model with `hf download`"
        )


def _refuse_adapter(directory: Path) -> None:
    config = directory / "adapter_config.json"
    if not config.is_file() or any((directory / name).is_file() for name in _WEIGHTS):
        return
    try:
        base = json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        base = "its base model"
    raise InflightError(
        f"{directory} is a LoRA adapter of {base}: merge the two (peft's merge_and_unload, then save_pretrained) and "
        "convert the result"
    )


def _refuse_other_weights(directory: Path) -> None:
    """Weights in a file of another name, of which transformers would not take any either."""
    if any((directory / name).is_file() for name in _WEIGHTS):
        return
    found = sorted(file.name for file in directory.glob("*.safetensors"))
    if len(found) == 1:
        raise InflightError(
            f"{directory} has neither model.safetensors nor model.safetensors.index.json, but {found[0]}: if that "
            "holds the whole model, name it model.safetensors"
        )
    if found:
        raise InflightError(
            f"{directory} has {len(found)} safetensors files, but no model.safetensors.index.json that says which "
            "tensor is in which: download the model anew"
        )

"""Tokenizers that are named by their model's id on Hugging Face's hub, as upstream's tokenizer_dir may be."""

import re
from pathlib import Path

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")


def is_hub_id(name: str) -> bool:
    return _HUB_ID.fullmatch(name) is not None


def tokenizer_directory(name: str) -> Path:
    """`name` if it is a directory, or no hub id; else the model's directory in the hub's local cache, if it is there.
    Nothing is downloaded."""
    if Path(name).is_dir() or not is_hub_id(name):
        return Path(name)
    from huggingface_hub import try_to_load_from_cache

    for file in _FILES:
        if isinstance(found := try_to_load_from_cache(name, file), str):
            return Path(found).parent
    return Path(name)

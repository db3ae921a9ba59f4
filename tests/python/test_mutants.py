"""Damaged files of every kind: each reader takes them or refuses them in one line, whatever the damage.

FUZZ_MUTANTS is how many of each kind; 10 in `make test`.
"""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import gguf_models
import numpy as np
import pytest
import tiny_models
from inflight._native import Engine
from mutants import mutate
from sentencepiece_reference import model_proto
from small_tokenizers import byte_level

from inflight.checkpoint.convert import convert_checkpoint
from inflight.checkpoint.safetensors import SafetensorsReader
from inflight.engine.build import build_engine
from inflight.engine.check import check_checkpoint, check_engine
from inflight.engine.config import BuildOptions
from inflight.errors import InflightError
from inflight.repository.check import check_repository
from inflight.repository.generate import generate_repository
from inflight.text import Tokenizer

MUTANTS = int(os.environ.get("FUZZ_MUTANTS", 10))
OPTIONS = BuildOptions(max_batch_size=2, max_num_tokens=16, max_seq_len=32, kv_cache_memory=1 << 20)
TOKENIZER_CONFIG = {
    "tokenizer_class": "LlamaTokenizer",
    "eos_token": "<|im_end|>",
    "pad_token": {"__type": "AddedToken", "content": "<pad>", "special": True},
    "extra_special_tokens": ["<|tool|>"],
    "chat_template": [{"name": "default", "template": "{{ messages }}"}],
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> Path:
    """A directory of Hugging Face's, one with tokenizer.model, a GGUF file, a checkpoint, an engine, a repository."""
    root = tmp_path_factory.mktemp("originals")
    model = tiny_models.load("qwen2-sliding-layers")
    source = root / "huggingface"
    model.save_pretrained(source, max_shard_size="100KB")
    byte_level().save(str(source / "tokenizer.json"))
    size = byte_level().get_vocab_size()
    (source / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG))
    (source / "added_tokens.json").write_text(json.dumps({"<|tool|>": size, "<pad>": size + 1}))
    (source / "special_tokens_map.json").write_text(json.dumps({"pad_token": {"content": "<pad>"}}))
    slow = shutil.copytree(source, root / "slow")
    (slow / "tokenizer.json").unlink()
    words = ["▁", *"Thedog", "▁T", "he", "▁The", "do", "dog", "▁dog"]
    pieces = [*gguf_models.TOKENS, *words]
    types = [2, 3, 3, *[6] * 256, *[1] * len(words)]
    scores = [-float(i) for i in range(len(pieces))]
    (slow / "tokenizer.model").write_bytes(model_proto(vocabulary=(pieces, scores, types)))
    size = len(pieces)
    (slow / "added_tokens.json").write_text(json.dumps({"<|tool|>": size, "<pad>": size + 1}))
    (slow / "special_tokens_map.json").write_text(json.dumps({"pad_token": "<pad>"}))
    (root / "gguf").mkdir()
    gguf_models.write(root / "gguf" / "model.gguf", tiny_models.load("llama"))
    convert_checkpoint(source, root / "checkpoint", progress=False)
    build_engine(root / "checkpoint", root / "engine", OPTIONS, progress=False)
    generate_repository(root / "engine", root / "repository")
    return root


def convert(directory: Path) -> None:
    out = directory.parent / "out"
    files = [*directory.glob("*.gguf"), directory]
    convert_checkpoint(files[0], out, progress=False)
    check_checkpoint(out)


def build(directory: Path) -> None:
    out = directory.parent / "out"
    build_engine(directory, out, OPTIONS, progress=False)
    Engine(out)


def load_engine(directory: Path) -> None:
    engine = Engine(directory)
    engine.logits([[1, 2, 3]])
    check_engine(directory)


def make_repository(directory: Path) -> None:
    generate_repository(directory, directory.parent / "out")


def read_tokenizer(directory: Path) -> None:
    tokenizer = Tokenizer(directory / "tokenizer")
    tokenizer.decode(tokenizer.encode("The <|tool|> dog é\n"))
    tokenizer.chat_prompt([{"role": "user", "content": "The dog"}])


def read_safetensors(directory: Path) -> None:
    for path in directory.glob("*.safetensors"):
        reader = SafetensorsReader(path)
        for name in reader.names():
            reader.tensor(name).sum()


# What is damaged (files of a directory, and how far into them), and who reads it.
CASES: dict[str, tuple[str, list[str], int | None, Callable[[Path], None]]] = {
    "safetensors": ("huggingface", ["model-*.safetensors"], 400, read_safetensors),
    "safetensors of a model": ("huggingface", ["model-*.safetensors"], 2000, convert),
    "index of shards": ("huggingface", ["model.safetensors.index.json"], None, convert),
    "gguf": ("gguf", ["model.gguf"], 6000, convert),
    "config.json": ("huggingface", ["config.json"], None, convert),
    "generation_config.json": ("huggingface", ["generation_config.json"], None, convert),
    "tokenizer.json": ("huggingface", ["tokenizer.json"], None, convert),
    "what belongs to tokenizer.json": (
        "huggingface",
        ["tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"],
        None,
        convert,
    ),
    "tokenizer.model": ("slow", ["tokenizer.model"], None, convert),
    "what belongs to tokenizer.model": (
        "slow",
        ["tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"],
        None,
        convert,
    ),
    "checkpoint": ("checkpoint", ["config.json", "rank0.safetensors"], 2000, build),
    "tokenizer of a checkpoint": ("checkpoint", ["tokenizer/*.json"], None, build),
    "engine": ("engine", ["config.json", "rank0.safetensors"], 4000, load_engine),
    "engine of a repository": ("engine", ["config.json", "tokenizer/tokenizer.json"], None, make_repository),
    "tokenizer that is served": ("engine", ["tokenizer/*.json"], None, read_tokenizer),
    "config.pbtxt": ("repository", ["*/config.pbtxt"], None, check_repository),
}


@pytest.mark.parametrize("kind", CASES)
def test_damaged_files_are_taken_or_refused_in_one_line(kind, originals, tmp_path, capfd):
    source, patterns, within, read = CASES[kind]
    for seed in range(MUTANTS):
        random = np.random.default_rng([seed, len(kind)])
        directory = shutil.copytree(originals / source, tmp_path / "mutant")
        paths = sorted(path for pattern in patterns for path in directory.glob(pattern))
        mutate(paths[random.integers(len(paths))], random, within)
        try:
            read(directory)
        except InflightError as error:
            lines = str(error).splitlines()
            assert len(lines) == 1 or kind == "config.pbtxt", f"mutant {seed}: {error}"
            assert len(str(error)) < 2000, f"mutant {seed}: {error}"
        except BaseException as error:
            raise AssertionError(f"mutant {seed} of {kind} ended in {type(error).__name__}: {error}") from error
        printed = "".join(capfd.readouterr())
        assert not re.search("panicked|Traceback|Warning", printed), f"mutant {seed}: {printed}"
        for made in tmp_path.iterdir():
            shutil.rmtree(made)

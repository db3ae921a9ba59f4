"""Model directories and GGUF files as many tools and years have written them: what test_model_files.py converts.

Each is made of a tiny model of random weights. `Directory` is Hugging Face's with what differs from what
transformers writes today; `gguf_file` writes the GGUF ones.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import gguf_models
import small_tokenizers
import tiny_models
import torch
from gguf import GGMLQuantizationType as GgmlType
from safetensors.torch import save_file
from sentencepiece_reference import model_proto, pieces_and_scores
from transformers import PreTrainedModel

Tensors = dict[str, torch.Tensor]
DROPPED = object()  # in place of a key's value
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


@dataclass
class Directory:
    """A Hugging Face directory.

    model: one of tiny_models. vocab_size: rows of its embedding. config, generation: keys that differ; DROPPED drops
    one. tensors: changes the weights. files: more JSON files, by name. shard: of about so many bytes. tokenizer:
    "tokenizer.json", "tokenizer.model" or "vocab.json". edit: does the rest to the finished directory.
    """

    model: str = "llama"
    vocab_size: int = tiny_models.SIZE["vocab_size"]
    config: dict = field(default_factory=dict)
    generation: dict = field(default_factory=dict)
    tensors: Callable[[Tensors], Tensors] = lambda tensors: tensors
    files: dict[str, object] = field(default_factory=dict)
    shard: str | None = None
    tokenizer: str = "tokenizer.json"
    edit: Callable[[Path], None] = lambda directory: None

    def write(self, directory: Path) -> Path:
        model = tiny_models.load(self.model, vocab_size=self.vocab_size)
        model.save_pretrained(directory, max_shard_size=self.shard or "1GB")
        if self.shard is None:
            tensors = {name: value.clone() for name, value in model.state_dict().items()}
            if model.config.tie_word_embeddings:
                del tensors[HEAD]
            save_file(self.tensors(tensors), directory / "model.safetensors", metadata={"format": "pt"})
        _edit_json(directory / "config.json", self.config)
        _edit_json(directory / "generation_config.json", self.generation)
        tokenizer_class = self._write_tokenizer(directory)
        files = {"tokenizer_config.json": {}, **self.files}
        files["tokenizer_config.json"] = {"tokenizer_class": tokenizer_class} | files["tokenizer_config.json"]
        for name, values in files.items():
            (directory / name).write_text(json.dumps(values))
        self.edit(directory)
        return directory

    def _write_tokenizer(self, directory: Path) -> str:
        if self.tokenizer == "tokenizer.model":
            (directory / "tokenizer.model").write_bytes(model_proto())
            return "LlamaTokenizer"
        tokenizer = small_tokenizers.byte_level()
        if self.tokenizer == "tokenizer.json":
            tokenizer.save(str(directory / "tokenizer.json"))
            return "PreTrainedTokenizerFast"
        model = json.loads(tokenizer.to_str())["model"]
        (directory / "vocab.json").write_text(json.dumps(model["vocab"]))
        (directory / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in model["merges"]))
        return "Qwen2Tokenizer"


def _edit_json(path: Path, changes: dict) -> None:
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not DROPPED}))


def with_head(tensors: Tensors) -> Tensors:
    return tensors | {HEAD: tensors[EMBEDDING].clone()}


def with_another_head(tensors: Tensors) -> Tensors:
    return tensors | {HEAD: tensors[EMBEDDING].flip(0).contiguous()}


def head_alone(tensors: Tensors) -> Tensors:
    tensors = with_head(tensors)
    del tensors[EMBEDDING]
    return tensors


def without_prefix(tensors: Tensors) -> Tensors:
    return {name.removeprefix("model."): value for name, value in tensors.items()}


def with_prefix_twice(tensors: Tensors) -> Tensors:
    return {f"model.{name}": value for name, value in tensors.items()}


def with_old_buffers(tensors: Tensors) -> Tensors:
    return tensors | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}


def as_type(dtype: torch.dtype) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: value.to(dtype) for name, value in tensors.items()}


def gguf_file(path: Path, name: str = "llama", **options) -> Path:
    """options: of gguf_models.write."""
    return gguf_models.write(path, gguf_model(name), **options)


def gguf_model(name: str = "llama") -> PreTrainedModel:
    """What gguf_file writes."""
    return tiny_models.randomize(gguf_models.make(name)).eval()


def gguf_blocks(kind: GgmlType) -> dict:
    """gguf_file's options for a model with matrices of a type, also of those that gguf cannot quantize to."""
    if kind in gguf_models.SCALES:
        parts = {"attn_q": 256, "attn_output": 256, "ffn_gate": 256, "ffn_up": 256, "ffn_down": 256}
        blocks = {
            f"blk.{layer}.{part}.weight": (gguf_models.random_blocks(kind, rows, 256, seed=layer), kind)
            for layer in range(2)
            for part, rows in parts.items()
        }
        return {"blocks": blocks}
    return {"types": kind}


FIRST_FREE = small_tokenizers.byte_level().get_vocab_size()
FIRST_FREE_PIECE = len(pieces_and_scores()[0])

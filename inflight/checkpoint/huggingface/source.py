"""A Hugging Face directory with safetensors weights, one file or sharded, as a source to convert."""

import dataclasses
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inflight.checkpoint.huggingface import config as huggingface_config
from inflight.checkpoint.huggingface import tokenizer as huggingface_tokenizer
from inflight.checkpoint.matrix import Matrix, MatrixType
from inflight.checkpoint.safetensors import SafetensorsReader, TensorInfo
from inflight.checkpoint.source import SourceMatrix
from inflight.errors import InflightError
from inflight.json_object import JsonObject

_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_PART_MODULES = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "dense": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
_NORM_MODULES = {
    "input": "input_layernorm",
    "post": "post_attention_layernorm",
    "q": "self_attn.q_norm",
    "k": "self_attn.k_norm",
}
_EMBEDDING, _HEAD = "model.embed_tokens", "lm_head"
# Held by some files although computed from the configuration.
_IGNORED = re.compile(r"(.*\.)?rotary_emb\.inv_freq")
# How transformers' models call their tensors; a file may have the first "model." once too often, or not at all.
_MODEL_NAME = re.compile(r"model\.(embed_tokens|layers|norm)\..*|lm_head\..*")
_COMPARED_ROWS = 4096


@dataclass(frozen=True)
class StoredTensor:
    """A tensor's file, and its name there."""

    reader: SafetensorsReader
    name: str

    @property
    def info(self) -> TensorInfo:
        return self.reader.info(self.name)

    def read(self) -> np.ndarray:
        return self.reader.tensor(self.name)


class HuggingFaceSource:
    """See ModelSource. Rows are views of the mapped files until they are converted."""

    embedding_name = _EMBEDDING
    final_norm_name = "model.norm.weight"
    lm_head_name = _HEAD

    def __init__(self, directory: Path):
        self._tensors = _by_model_name(_open_shards(directory))
        self._directory = directory
        self.config = huggingface_config.load_config(directory, self._most_common_dtype())
        self._tie()

    def part_name(self, layer: int, part: str) -> str:
        return f"model.layers.{layer}.{_PART_MODULES[part]}"

    def norm_name(self, layer: int, norm: str) -> str:
        return f"model.layers.{layer}.{_NORM_MODULES[norm]}.weight"

    def matrix(self, name: str, rows: int, columns: int) -> SourceMatrix:
        tensor = self._find(f"{name}.weight", (rows, columns))
        dtype = MatrixType(_DTYPES[tensor.info.dtype])
        values = tensor.read()
        return SourceMatrix(name, (rows, columns), dtype, lambda start, stop: Matrix(dtype, values[start:stop]))

    def vector(self, name: str, size: int) -> np.ndarray:
        tensor = self._find(name, (size,))
        return Matrix(MatrixType(_DTYPES[tensor.info.dtype]), tensor.read()[None]).to_float32()[0]

    def check_all_used(self, names: set[str]) -> None:
        if self.config.tie_word_embeddings:
            names = names | {f"{_EMBEDDING}.weight", f"{_HEAD}.weight"}
        unused = sorted(name for name in self._tensors.keys() - names if not _IGNORED.fullmatch(name))
        if unused:
            tensor = self._tensors[unused[0]]
            raise InflightError(
                f"{tensor.reader.path}: a {self.config.model_type} model as {self._directory}/config.json "
                f"describes it has no tensor {tensor.name} ({len(unused)} unexpected in all)"
            )

    def _tie(self) -> None:
        """Decides as transformers does what the flag means for the tensors that are there: with it set, either of them
        stands for both, but an output projection that differs from the embedding is kept."""
        has_head = f"{_HEAD}.weight" in self._tensors
        if not self.config.tie_word_embeddings:
            if not has_head:
                raise InflightError(
                    f"{self._directory}/config.json: tie_word_embeddings is false, and the weights lack tensor "
                    f"{_HEAD}.weight; set it to true if the embedding is the output projection too"
                )
        elif f"{_EMBEDDING}.weight" not in self._tensors:
            self.embedding_name = _HEAD
        elif has_head and not self._head_is_embedding():
            self.config = dataclasses.replace(self.config, tie_word_embeddings=False)

    def _head_is_embedding(self) -> bool:
        shape = self.config.vocab_size, self.config.hidden_size
        embedding, head = (self.matrix(name, *shape) for name in (_EMBEDDING, _HEAD))
        return all(
            np.array_equal(
                embedding.read(start, start + _COMPARED_ROWS).to_float32(),
                head.read(start, start + _COMPARED_ROWS).to_float32(),
            )
            for start in range(0, shape[0], _COMPARED_ROWS)
        )

    def save_tokenizer(self, directory: Path) -> None:
        huggingface_tokenizer.save_tokenizer(self._directory, directory, self.config.vocab_size)

    def _find(self, name: str, shape: tuple[int, ...]) -> StoredTensor:
        if name not in self._tensors:
            raise InflightError(f"{self._directory}: the weights lack tensor {name} of shape {list(shape)}")
        tensor = self._tensors[name]
        info = tensor.info
        if info.shape != shape:
            raise InflightError(
                f"{tensor.reader.path}: tensor {tensor.name} has shape {list(info.shape)}; "
                f"{self._directory}/config.json asks for {list(shape)}"
            )
        if info.dtype not in _DTYPES:
            raise InflightError(
                f"{tensor.reader.path}: tensor {tensor.name} has dtype {info.dtype}; supported are {', '.join(_DTYPES)}"
            )
        return tensor

    def _most_common_dtype(self) -> str:
        counts = Counter(tensor.info.dtype for name, tensor in self._tensors.items() if "_proj." in name)
        dtype = counts.most_common(1)[0][0] if counts else "F32"
        return _DTYPES.get(dtype, "float32")


def _by_model_name(readers: dict[str, SafetensorsReader]) -> dict[str, StoredTensor]:
    """The tensors by their names in transformers' models. Raises InflightError where two have the same."""
    tensors: dict[str, StoredTensor] = {}
    for stored_name, reader in readers.items():
        candidates = (stored_name, stored_name.removeprefix("model."), f"model.{stored_name}")
        name = next((name for name in candidates if _MODEL_NAME.fullmatch(name)), stored_name)
        if name in tensors:
            raise InflightError(f"{reader.path}: holds {tensors[name].name} and {stored_name}, two tensors of one kind")
        tensors[name] = StoredTensor(reader, stored_name)
    return tensors


def _open_shards(directory: Path) -> dict[str, SafetensorsReader]:
    """Each tensor's file, from model.safetensors or from the shards that its index names."""
    single = directory / "model.safetensors"
    index = directory / "model.safetensors.index.json"
    if single.is_file():
        reader = SafetensorsReader(single)
        return dict.fromkeys(reader.names(), reader)
    if not index.is_file():
        found = sorted(path.name for path in directory.glob("*.bin")) + sorted(
            path.name for path in directory.glob("*.gguf")
        )
        hint = (
            f" (found {', '.join(found)}: give the GGUF file itself, or save the model as safetensors)" if found else ""
        )
        raise InflightError(f"{directory} has neither model.safetensors nor model.safetensors.index.json{hint}")
    weight_map = JsonObject.load(index).object("weight_map")
    readers: dict[str, SafetensorsReader] = {}
    for name, file in weight_map.values.items():
        if not isinstance(file, str) or Path(file).name != file or "\0" in file:
            weight_map.fail(name, "the name of a file beside the index")
        if file not in readers:
            readers[file] = SafetensorsReader(directory / file)
        readers[file].info(name)
    tensors: dict[str, SafetensorsReader] = {}
    for reader in readers.values():
        for name in reader.names():
            if name in tensors:
                raise InflightError(f"both {tensors[name].path} and {reader.path} hold tensor {name}")
            tensors[name] = reader
    return tensors

"""A Hugging Face directory with safetensors weights, one file or sharded, as a source to convert."""

import re
from collections import Counter
from pathlib import Path

import numpy as np

from inflight.checkpoint import huggingface_config, huggingface_tokenizer
from inflight.checkpoint.matrix import Matrix, MatrixType
from inflight.checkpoint.safetensors import SafetensorsReader
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
# Held by some files although computed from the configuration, or unused with tied embeddings.
_IGNORED = re.compile(r"(.*\.)?rotary_emb\.inv_freq|lm_head\.weight")


class HuggingFaceSource:
    """See ModelSource. Rows are views of the mapped files until they are converted."""

    lm_head_name = "lm_head"

    def __init__(self, directory: Path):
        self._tensors = _open_shards(directory)
        self._directory = directory
        # AutoModel.save_pretrained leaves the prefix out
        self._prefix = "" if "embed_tokens.weight" in self._tensors else "model."
        self.embedding_name = f"{self._prefix}embed_tokens"
        self.final_norm_name = f"{self._prefix}norm.weight"
        self.config = huggingface_config.load_config(directory, self._most_common_dtype())

    def part_name(self, layer: int, part: str) -> str:
        return f"{self._prefix}layers.{layer}.{_PART_MODULES[part]}"

    def norm_name(self, layer: int, norm: str) -> str:
        return f"{self._prefix}layers.{layer}.{_NORM_MODULES[norm]}.weight"

    def matrix(self, name: str, rows: int, columns: int) -> SourceMatrix:
        reader = self._find(f"{name}.weight", (rows, columns))
        dtype = MatrixType(_DTYPES[reader.info(f"{name}.weight").dtype])
        values = reader.tensor(f"{name}.weight")
        return SourceMatrix(name, (rows, columns), dtype, lambda start, stop: Matrix(dtype, values[start:stop]))

    def vector(self, name: str, size: int) -> np.ndarray:
        reader = self._find(name, (size,))
        dtype = MatrixType(_DTYPES[reader.info(name).dtype])
        return Matrix(dtype, reader.tensor(name)[None]).to_float32()[0]

    def check_all_used(self, names: set[str]) -> None:
        unused = sorted(name for name in self._tensors.keys() - names if not _IGNORED.fullmatch(name))
        if unused:
            raise InflightError(
                f"{self._tensors[unused[0]].path}: a {self.config.model_type} model as {self._directory}/config.json "
                f"describes it has no tensor {unused[0]} ({len(unused)} unexpected in all)"
            )

    def save_tokenizer(self, directory: Path) -> None:
        huggingface_tokenizer.save_tokenizer(self._directory, directory, self.config.vocab_size)

    def _find(self, name: str, shape: tuple[int, ...]) -> SafetensorsReader:
        if name not in self._tensors:
            raise InflightError(f"{self._directory}: the weights lack tensor {name} of shape {list(shape)}")
        reader = self._tensors[name]
        info = reader.info(name)
        if info.shape != shape:
            raise InflightError(
                f"{reader.path}: tensor {name} has shape {list(info.shape)}; "
                f"{self._directory}/config.json asks for {list(shape)}"
            )
        if info.dtype not in _DTYPES:
            raise InflightError(
                f"{reader.path}: tensor {name} has dtype {info.dtype}; supported are {', '.join(_DTYPES)}"
            )
        return reader

    def _most_common_dtype(self) -> str:
        counts = Counter(reader.info(name).dtype for name, reader in self._tensors.items() if "_proj." in name)
        dtype = counts.most_common(1)[0][0] if counts else "F32"
        return _DTYPES.get(dtype, "float32")


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
        if not isinstance(file, str) or Path(file).name != file:
            weight_map.fail(name, "the name of a file beside the index")
        if file not in readers:
            readers[file] = SafetensorsReader(directory / file)
        readers[file].info(name)
    return {name: readers[file] for name, file in weight_map.values.items()}

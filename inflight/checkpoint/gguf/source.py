"""A GGUF file of the Llama family as a source to convert."""

from collections import Counter
from pathlib import Path

import numpy as np

from inflight.checkpoint.gguf import config as gguf_config
from inflight.checkpoint.gguf.blocks import MATRIX_TYPES, decode_rows
from inflight.checkpoint.gguf.file import GgufFile, GgufTensor
from inflight.checkpoint.gguf.tokenizer import TokenizerMetadata, save_tokenizer
from inflight.checkpoint.huggingface.tokenizer import check_tokenizer
from inflight.checkpoint.matrix import Matrix
from inflight.checkpoint.source import SourceMatrix
from inflight.errors import InflightError

_PARTS = {
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "dense": "attn_output",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}
_NORMS = {"input": "attn_norm", "post": "ffn_norm", "q": "attn_q_norm", "k": "attn_k_norm"}
_ROPE_FACTORS = "rope_freqs.weight"  # read by config.py


class GgufSource:
    """See ModelSource. Blocks are views of the mapped file until they are converted."""

    embedding_name = "token_embd"
    final_norm_name = "output_norm.weight"
    lm_head_name = "output"

    def __init__(self, path: Path):
        self._file = GgufFile(path)
        gguf_config.architecture_of(self._file)  # before the tokenizer, which may be of a kind that is not read here
        self._tokenizer = TokenizerMetadata(self._file)
        self.config = gguf_config.load_config(self._file, self._tokenizer.special, self._most_common_dtype())

    def part_name(self, layer: int, part: str) -> str:
        return f"blk.{layer}.{_PARTS[part]}"

    def norm_name(self, layer: int, norm: str) -> str:
        return f"blk.{layer}.{_NORMS[norm]}.weight"

    def matrix(self, name: str, rows: int, columns: int) -> SourceMatrix:
        tensor = self._find(f"{name}.weight", (rows, columns))
        order = self._row_order(name, rows)

        def read(start: int, stop: int) -> Matrix:
            rows = slice(start, stop) if order is None else order[start:stop]
            return decode_rows(tensor.type, tensor.data[rows])

        return SourceMatrix(name, (rows, columns), MATRIX_TYPES[tensor.type], read)

    def vector(self, name: str, size: int) -> np.ndarray:
        tensor = self._find(name, (size,))
        values = decode_rows(tensor.type, tensor.data).to_float32()[0]
        order = self._row_order(name.removesuffix(".bias"), size)
        return values if order is None else values[order]

    def check_all_used(self, names: set[str]) -> None:
        unused = sorted(self._file.tensors.keys() - names - {_ROPE_FACTORS})
        if unused:
            raise InflightError(
                f"{self._file.path}: a {self.config.model_type} model as the metadata describes it has no tensor "
                f"{unused[0]} ({len(unused)} unexpected in all)"
            )

    def save_tokenizer(self, directory: Path) -> None:
        save_tokenizer(self._tokenizer, directory)
        check_tokenizer(directory, self.config.vocab_size)

    def _row_order(self, name: str, rows: int) -> np.ndarray | None:
        """Rows of the file in the checkpoint's order; None if that is the same.

        llama.cpp turns neighboring pairs of llama's queries and keys, Hugging Face a head's two halves, and
        llama.cpp's converter permutes the rows for it: row (head, half, i) to (head, i, half).
        """
        heads = {"attn_q": self.config.num_attention_heads, "attn_k": self.config.num_key_value_heads}
        part = name.rpartition(".")[2]
        if self.config.model_type != "llama" or part not in heads:
            return None
        return np.arange(rows).reshape(heads[part], -1, 2).swapaxes(1, 2).reshape(-1)

    def _find(self, name: str, shape: tuple[int, ...]) -> GgufTensor:
        if name not in self._file.tensors:
            raise InflightError(f"{self._file.path}: tensor {name} of shape {list(shape)} is missing")
        tensor = self._file.tensors[name]
        if tensor.shape != shape:
            raise InflightError(
                f"{self._file.path}: tensor {name} has shape {list(tensor.shape)}; the metadata asks for {list(shape)}"
            )
        if tensor.type not in MATRIX_TYPES:
            supported = ", ".join(supported_type.name for supported_type in MATRIX_TYPES)
            raise InflightError(
                f"{self._file.path}: tensor {name} has type {tensor.type.name}; supported are {supported}"
            )
        return tensor

    def _most_common_dtype(self) -> str:
        weights: Counter[str] = Counter()
        for tensor in self._file.tensors.values():
            if tensor.type in MATRIX_TYPES and len(tensor.shape) == 2 and tensor.name.startswith("blk."):
                weights[MATRIX_TYPES[tensor.type].dtype] += tensor.shape[0] * tensor.shape[1]
        return weights.most_common(1)[0][0] if weights else "float32"

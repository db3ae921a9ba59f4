"""A Llama of any size with random weights as a GGUF file that every engine here reads: Q8_0, or Q4_0 with Q8_0 ends."""

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as GgmlType

_FILE_TYPES = {GgmlType.Q8_0: gguf.LlamaFileType.MOSTLY_Q8_0, GgmlType.Q4_0: gguf.LlamaFileType.MOSTLY_Q4_0}
_BLOCK = 32  # weights that share a scale, in both types
_DEVIATION = 0.02  # of the weights
_CHUNK_BLOCKS = 1 << 20


@dataclass(frozen=True)
class LlamaShape:
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    positions: int = 2048


def write_random_llama(path: Path, shape: LlamaShape, matrices: GgmlType, seed: int = 0) -> None:
    """matrices: type of the layers' matrices. Embedding and output are Q8_0 in both, as is usual."""
    random = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    _add_metadata(writer, shape)
    writer.add_file_type(_FILE_TYPES[matrices])
    head_size = shape.hidden // shape.heads
    kv_size = shape.kv_heads * head_size
    layer_matrices = {
        "attn_q": (shape.hidden, shape.hidden),
        "attn_k": (kv_size, shape.hidden),
        "attn_v": (kv_size, shape.hidden),
        "attn_output": (shape.hidden, shape.hidden),
        "ffn_gate": (shape.intermediate, shape.hidden),
        "ffn_up": (shape.intermediate, shape.hidden),
        "ffn_down": (shape.hidden, shape.intermediate),
    }
    _add_matrix(writer, "token_embd.weight", (shape.vocabulary, shape.hidden), GgmlType.Q8_0, random)
    for layer in range(shape.layers):
        for name, rows_and_columns in layer_matrices.items():
            _add_matrix(writer, f"blk.{layer}.{name}.weight", rows_and_columns, matrices, random)
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", np.ones(shape.hidden, np.float32))
    writer.add_tensor("output_norm.weight", np.ones(shape.hidden, np.float32))
    _add_matrix(writer, "output.weight", (shape.vocabulary, shape.hidden), GgmlType.Q8_0, random)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_matrix(writer, name: str, shape: tuple[int, int], kind: GgmlType, random: np.random.Generator) -> None:
    """Random blocks, [rows, bytes of a row]: a half-precision scale, then 32 integers of 8 or 4 bits."""
    rows, columns = shape
    levels = 256 if kind == GgmlType.Q8_0 else 16
    payload = _BLOCK if kind == GgmlType.Q8_0 else _BLOCK // 2
    scale = np.float16(_DEVIATION / (levels / np.sqrt(12)))  # of a uniform distribution over the levels
    blocks = np.empty((rows * columns // _BLOCK, 2 + payload), np.uint8)
    blocks[:, :2] = np.frombuffer(scale.tobytes(), np.uint8)
    for start in range(0, len(blocks), _CHUNK_BLOCKS):
        part = blocks[start : start + _CHUNK_BLOCKS, 2:]
        part[:] = random.integers(0, 256, part.shape, np.uint8)
    writer.add_tensor(name, blocks.reshape(rows, -1), raw_dtype=kind)


def _add_metadata(writer, shape: LlamaShape) -> None:
    writer.add_context_length(shape.positions)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.intermediate)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.hidden // shape.heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(shape.vocabulary)
    _add_tokenizer(writer, shape.vocabulary)


def _add_tokenizer(writer, vocabulary: int) -> None:
    """A byte-level tokenizer with one merge; only its size matters, prompts are token ids."""
    bytes_as_text = [_byte_as_text(byte) for byte in range(256)]
    tokens = ["<|begin|>", "<|end|>", *bytes_as_text, bytes_as_text[97] + bytes_as_text[98]]
    kinds = [gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.NORMAL] * 257
    unused = vocabulary - len(tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens + [f"<|unused{index}|>" for index in range(unused)])
    writer.add_token_types(kinds + [gguf.TokenType.UNUSED] * unused)
    writer.add_token_merges([f"{bytes_as_text[97]} {bytes_as_text[98]}"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(False)


def _byte_as_text(byte: int) -> str:
    """GPT-2's printable stand-in for a byte."""
    if 33 <= byte <= 126 or 161 <= byte <= 172 or 174 <= byte <= 255:
        return chr(byte)
    others = [b for b in range(256) if not (33 <= b <= 126 or 161 <= b <= 172 or 174 <= b <= 255)]
    return chr(256 + others.index(byte))

"""The memory plan: arithmetic, defaults, and refusals that say what would fit."""

import dataclasses
import re

import pytest
from model_fields import model_fields

from inflight.checkpoint.config import ModelConfig
from inflight.checkpoint.matrix import MatrixType
from inflight.engine.config import BuildOptions
from inflight.engine.plan import SERVER_MEMORY, Machine, format_bytes, make_plan, position_limit
from inflight.engine.sizes import activation_bytes, kv_bytes_per_token, packed_bytes
from inflight.errors import InflightError

MIB, GIB = 1 << 20, 1 << 30
WEIGHTS = 100 * MIB

# SmolLM2-135M
MODEL = ModelConfig.from_dict(
    model_fields(
        dtype="int4",
        vocab_size=49152,
        hidden_size=576,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        head_size=64,
        intermediate_size=1536,
        max_position_embeddings=8192,
        rope={"type": "default", "theta": 1e5},
        layer_windows=[0] * 30,
    )
)


def plan(available=32 * GIB, model=MODEL, **options):
    return make_plan(model, BuildOptions(**options), WEIGHTS, Machine(available, num_threads=4))


def test_kv_cache_arithmetic():
    made = plan(kv_cache_memory=100 * MIB, tokens_per_block=32)
    assert made.kv_bytes_per_token == 2 * 4 * 30 * 3 * 64 == kv_bytes_per_token(MODEL, "float32")
    assert made.num_blocks == 100 * MIB // (46080 * 32) == 71
    assert made.config.max_seq_len == 71 * 32
    assert made.num_full_sequences == 1
    assert made.config.kv_cache_bytes == 71 * 32 * 46080
    assert made.total == WEIGHTS + made.activations + made.config.kv_cache_bytes + made.config.logits_bytes


@pytest.mark.parametrize(
    "is_quantized, options, dtype",
    [
        (True, {}, "bfloat16"),
        (True, {"tokens_per_block": 1}, "float32"),
        (True, {"kv_cache_dtype": "float32"}, "float32"),
        (False, {}, "float32"),
        (False, {"kv_cache_dtype": "bfloat16"}, "bfloat16"),
    ],
)
def test_kv_cache_dtype_follows_the_weights(is_quantized, options, dtype):
    options = BuildOptions(kv_cache_memory=100 * MIB, **options)
    made = make_plan(MODEL, options, WEIGHTS, Machine(32 * GIB, num_threads=4), is_quantized)
    assert made.config.kv_cache_dtype == dtype
    assert made.kv_bytes_per_token == {"float32": 46080, "bfloat16": 23040}[dtype]


def test_a_sequence_takes_whole_blocks():
    made = plan(kv_cache_memory=46080 * 32 * 7, max_seq_len=65)
    assert made.num_full_sequences == 2


def test_activation_arithmetic():
    per_token = 4 * (576 + 64) + 28
    per_strip_token = 4 * (576 + 960 + 576 + 3 * 1536)
    per_output_row = 4 * (576 + 49152)
    per_returned_row = 2 * 4 * 49152  # of two steps, each at most 64 MiB: 341 rows
    scratch = 4 * (64 * (64 + 128 + 2) + 16 * 64)

    def inputs(strip_tokens: int, output_rows: int) -> int:
        """Of linear layers: values in whole tiles of 16 rows, scales and sums in as many as there are."""

        def layer_input(rows: int, columns: int) -> int:
            return -(-rows // 16) * 16 * 2 * (columns + 31) + rows * 12 * (columns // 16 + 1)

        return layer_input(strip_tokens, 576) + layer_input(strip_tokens, 1536) + layer_input(output_rows, 576)

    for max_batch_size, output_rows in (8, 16), (20, 20):
        expected = 100 * (per_token + per_strip_token + per_returned_row) + output_rows * per_output_row + 3 * scratch
        expected += inputs(100, output_rows)
        expected += 40 * (1 + 2 * max_batch_size)
        assert activation_bytes(MODEL, max_batch_size, 100, 3) == expected
    few = activation_bytes(MODEL, 2, 8, 3)
    rows = 8 * (per_token + per_strip_token + per_output_row + per_returned_row)
    assert few == rows + inputs(8, 8) + 3 * scratch + 40 * 5
    many = activation_bytes(MODEL, 20, 1000, 3)
    expected = 1000 * per_token + 768 * per_strip_token + 20 * per_output_row + inputs(768, 20) + 3 * scratch
    assert many == expected + 341 * per_returned_row + 40 * (2 + 40)


def test_logits_take_what_one_full_sequence_needs_or_a_quarter_of_what_is_left():
    row = 4 * 49152
    assert plan(max_seq_len=1000).config.logits_bytes == 1000 * row
    small = plan(available=6 * GIB)
    spare = 6 * GIB - SERVER_MEMORY - WEIGHTS - small.activations
    assert small.config.logits_bytes == (spare - small.config.kv_cache_bytes) // 4 < 8192 * row
    assert plan(logits_memory=5 * MIB).config.logits_bytes == 5 * MIB
    assert plan(logits_memory=0).config.logits_bytes == 0
    assert "logits" in str(small)


@pytest.mark.parametrize(
    "matrix_type, rows, columns, half_scales, expected",
    [
        (MatrixType("float32"), 17, 5, False, 64 + 2 * 320),
        (MatrixType("bfloat16"), 16, 3, False, 64 + 128),
        (MatrixType("int8", 64), 16, 64, False, 64 + 64 + 1024),
        (MatrixType("int4", 32), 16, 64, True, 64 + 64 + 512),
        (MatrixType("int4", 32, True), 16, 64, False, 64 + 256 + 512),
        (MatrixType("int8", 36), 16, 72, False, 64 + 128 + 2 * 2 * 24 * 16),
    ],
    ids=str,
)
def test_packed_matrix_arithmetic(matrix_type, rows, columns, half_scales, expected):
    assert packed_bytes(matrix_type, rows, columns, half_scales) == expected


def test_defaults_use_the_model_s_context_and_half_of_the_memory_left():
    made = plan(available=9 * GIB)
    config = made.config
    assert (config.max_batch_size, config.max_num_tokens, config.tokens_per_block) == (64, 2048, 32)
    assert config.max_seq_len == 8192
    spare = 9 * GIB - SERVER_MEMORY - WEIGHTS - made.activations
    assert spare // 2 - 46080 * 32 < config.kv_cache_bytes <= spare // 2


def test_no_more_cache_than_the_largest_batch_can_use():
    made = plan(available=512 * GIB, max_batch_size=4, max_seq_len=1024)
    assert made.config.kv_cache_bytes == 4 * 1024 * 46080
    assert made.num_full_sequences == 4


def test_a_small_machine_gets_shorter_sequences():
    made = plan(available=2 * GIB, max_batch_size=4, max_num_tokens=256)
    assert 1024 < made.config.max_seq_len <= 8192
    assert made.num_full_sequences >= 1
    tight = plan(available=SERVER_MEMORY + WEIGHTS + 120 * MIB, max_batch_size=4, max_num_tokens=256)
    assert tight.config.max_seq_len % 32 == 0 and tight.config.max_seq_len < 4096


def test_one_sequence_asked_for_may_take_more_than_half():
    made = plan(available=SERVER_MEMORY + WEIGHTS + 440 * MIB, max_batch_size=1, max_num_tokens=128, max_seq_len=8192)
    assert made.num_full_sequences == 1


def test_batch_follows_a_small_token_budget():
    assert plan(max_num_tokens=8).config.max_batch_size == 8
    assert plan(max_batch_size=4096).config.max_num_tokens == 4096


def test_beams_fit_the_batch():
    assert plan().config.max_beam_width == 8
    assert plan(max_batch_size=3).config.max_beam_width == 3
    assert plan(max_num_tokens=2).config.max_beam_width == 2
    assert plan(max_batch_size=20, max_beam_width=20).config.max_beam_width == 20
    wide = plan(max_beam_width=100, max_seq_len=128).config
    assert (wide.max_beam_width, wide.max_batch_size) == (100, 100)


def remedy(error, name):
    return re.search(rf"{name} (\S+) or", str(error.value)).group(1)


def test_refusal_names_values_that_fit():
    with pytest.raises(
        InflightError, match="cannot hold one sequence: 8192 tokens take 360.0 MiB, --kv-cache-memory"
    ) as error:
        plan(kv_cache_memory=100 * MIB, max_seq_len=8192)
    memory = int(remedy(error, "--kv-cache-memory").removesuffix("MiB")) * MIB
    assert plan(kv_cache_memory=memory, max_seq_len=8192).num_full_sequences == 1
    length = int(remedy(error, "--max-seq-len"))
    assert plan(kv_cache_memory=100 * MIB, max_seq_len=length).num_full_sequences == 1
    with pytest.raises(InflightError):
        plan(kv_cache_memory=100 * MIB, max_seq_len=length + 1)


def test_refusal_of_a_cache_smaller_than_a_block():
    with pytest.raises(InflightError, match="a smaller --tokens-per-block"):
        plan(kv_cache_memory=MIB)
    assert plan(kv_cache_memory=MIB, tokens_per_block=16).config.max_seq_len == 16
    with pytest.raises(InflightError, match="pass --kv-cache-memory 2MiB or more$"):
        plan(kv_cache_memory=1000)


def test_refusal_of_a_long_sequence_on_a_small_machine():
    with pytest.raises(InflightError, match="the memory available here gives") as error:
        plan(available=SERVER_MEMORY + WEIGHTS + 200 * MIB, max_num_tokens=256, max_batch_size=4, max_seq_len=8192)
    length = int(remedy(error, "--max-seq-len"))
    plan(available=SERVER_MEMORY + WEIGHTS + 200 * MIB, max_num_tokens=256, max_batch_size=4, max_seq_len=length)


def test_refusal_of_a_machine_that_does_not_hold_the_model():
    with pytest.raises(InflightError, match=r"this machine has 512.0 MiB available: lower --max-num-tokens"):
        plan(available=512 * MIB)
    assert plan(available=512 * MIB, kv_cache_memory=2 * GIB).config.max_seq_len == 8192


ROPES = {
    "default": ({"type": "default"}, 8192),
    "linear": ({"type": "linear", "factor": 4.0}, 32768),
    "dynamic": ({"type": "dynamic", "factor": 4.0}, None),
    "llama3": ({"type": "llama3", "factor": 8.0, "original_max_position_embeddings": 1024}, 8192),
    "yarn": ({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192}, 32768),
    "yarn from here": ({"type": "yarn", "factor": 4.0}, 32768),
    "yarn to here": ({"type": "yarn", "original_max_position_embeddings": 1024}, 8192),
}


@pytest.mark.parametrize("name", ROPES)
def test_sequences_end_where_the_positions_do(name):
    rope, limit = ROPES[name]
    model = dataclasses.replace(MODEL, rope=rope)
    assert position_limit(model) == limit
    if limit is None:
        assert plan(model=model).config.max_seq_len == 32768
        assert plan(model=model, max_seq_len=65536).config.max_seq_len == 65536
        return
    assert plan(model=model, available=64 * GIB).config.max_seq_len == limit
    with pytest.raises(InflightError, match=f"--max-seq-len is {limit + 1}; this model's positions end at {limit}"):
        plan(model=model, max_seq_len=limit + 1)


def test_what_is_printed():
    text = str(plan(kv_cache_memory=1 * GIB, max_batch_size=8, max_num_tokens=512, max_seq_len=2048))
    assert "weights       100.0 MiB" in text
    assert "512 tokens and 8 sequences a step" in text
    assert "46,080 bytes a token; 728 blocks of 32 tokens hold 11 sequences of 2,048 tokens (max_seq_len)" in text
    assert "of 32.0 GiB available on this machine" in text and "warning" not in text
    assert "warning: with 1.0 GiB for the server this is more than is available here" in str(
        plan(available=2 * GIB, kv_cache_memory=4 * GIB)
    )


@pytest.mark.parametrize("size, text", [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (GIB * 5 // 2, "2.5 GiB")])
def test_sizes_are_readable(size, text):
    assert format_bytes(size) == text

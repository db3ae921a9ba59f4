"""Files of many tools and years: transformers' ids and tokens, or a refusal in one line; none silently different.

`pytest -s tests/python/reference/test_model_files.py | grep '^|'` prints the table.
"""

import json

import gguf_models
import pytest
import torch
from gguf import GGMLQuantizationType as GgmlType
from model_directories import (
    DROPPED,
    FIRST_FREE,
    FIRST_FREE_PIECE,
    Directory,
    as_type,
    gguf_blocks,
    gguf_file,
    gguf_model,
    head_alone,
    with_another_head,
    with_head,
    with_old_buffers,
    with_prefix_twice,
    without_prefix,
)
from transformers import AutoModelForCausalLM, AutoTokenizer

from inflight import LLM, SamplingParams
from inflight.checkpoint.convert import convert_checkpoint
from inflight.engine.build import build_engine
from inflight.engine.config import BuildOptions
from inflight.errors import InflightError

TEXTS = ["The <|tool|> dog", "<|im_start|>user\nThe dog<|im_end|>\n", "jumps over <pad> <image>"]
PROMPT = [5, 72, 19, 260, 33]
NUM_TOKENS = 12
OPTIONS = BuildOptions(max_batch_size=2, max_num_tokens=64, max_seq_len=96, kv_cache_memory=8 << 20)


def drop(directory, name):
    (directory / name).unlink()


def move_in_index(directory):
    """The index says that a tensor is in another shard than it is."""
    path = directory / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["lm_head.weight"] = index["weight_map"]["model.norm.weight"]
    path.write_text(json.dumps(index))


def overlap(directory):
    """Two tensors of one size share their bytes."""
    path = directory / "model.safetensors"
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    layer = "model.layers.{}.mlp.up_proj.weight"
    header[layer.format(1)]["data_offsets"] = header[layer.format(0)]["data_offsets"]
    text = json.dumps(header, separators=(",", ":")).encode().ljust(size)
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])


TIED, UNTIED = dict(tie_word_embeddings=True), dict(tie_word_embeddings=False)
OLD_ROPE = dict(rope_parameters=DROPPED, rope_theta=500.0, rope_scaling={"type": "linear", "factor": 2.0})
OLD_SLIDING = dict(layer_types=DROPPED, use_sliding_window=True, sliding_window=20, max_window_layers=2)

# What a directory differs in, and the refusal where it is not served.
DIRECTORIES: dict[str, tuple[Directory, str | None]] = {
    "tied, the embedding alone": (Directory("llama-tied"), None),
    "tied, an equal head": (Directory("llama-tied", tensors=with_head), None),
    "tied, another head": (Directory("llama-tied", tensors=with_another_head), None),
    "tied, the head alone": (Directory("llama-tied", tensors=head_alone), None),
    "not tied, an equal head": (Directory("llama-tied", config=UNTIED, tensors=with_head), None),
    "not tied, no head": (Directory("llama-tied", config=UNTIED), "tie_word_embeddings is false, .* lm_head.weight"),
    "tied said of an untied one": (Directory("llama", config=TIED), None),
    "names without model.": (Directory("llama-tied", tensors=without_prefix), None),
    "names with model. twice": (Directory("llama-tied", tensors=with_prefix_twice), None),
    "old rotary buffers": (Directory(tensors=with_old_buffers), None),
    "shards and their index": (Directory(shard="100KB"), None),
    "an index of the wrong shard": (Directory(shard="100KB", edit=move_in_index), "has no tensor lm_head.weight"),
    "tensors that overlap": (Directory(edit=overlap), "model.safetensors is damaged: tensor .* begins at byte"),
    "bfloat16 weights": (Directory(tensors=as_type(torch.bfloat16), config=dict(dtype=DROPPED)), None),
    "float16, torch_dtype": (
        Directory(tensors=as_type(torch.float16), config=dict(dtype=DROPPED, torch_dtype="float16")),
        None,
    ),
    "rope_scaling of transformers 4": (Directory(config=OLD_ROPE), None),
    "head_dim and kv heads null": (
        Directory("llama-multi-head", config=dict(head_dim=None, num_key_value_heads=None)),
        None,
    ),
    "qwen2 windows of transformers 4": (Directory("qwen2-sliding-layers", config=OLD_SLIDING), None),
    "a window that is not used": (
        Directory("qwen2", config=dict(layer_types=DROPPED, use_sliding_window=False, sliding_window=4)),
        None,
    ),
    "mistral, window null": (Directory("mistral", config=dict(sliding_window=None)), None),
    "llama 3 rope, rope_type": (Directory("llama-rope-llama3"), None),
    "an unknown rope": (
        Directory(config=dict(rope_parameters=dict(rope_type="su", rope_theta=1e4))),
        "RoPE type is su|not a configuration",
    ),
    "added_tokens.json": (Directory(files={"added_tokens.json": {"<|tool|>": FIRST_FREE}}), None),
    "added_tokens.json, another id": (
        Directory(files={"added_tokens.json": {"<|tool|>": FIRST_FREE + 9}}),
        "added_tokens.json: <|tool|> is 310; expected the id".replace("|", r"\|"),
    ),
    "added_tokens_decoder": (
        Directory(
            files={
                "tokenizer_config.json": {
                    "added_tokens_decoder": {str(FIRST_FREE): {"content": "<|tool|>", "special": True, "rstrip": True}}
                }
            }
        ),
        None,
    ),
    "special_tokens_map.json": (
        Directory(files={"special_tokens_map.json": {"additional_special_tokens": ["<|tool|>", "<image>"]}}),
        None,
    ),
    "extra_special_tokens by name": (
        Directory(files={"tokenizer_config.json": {"extra_special_tokens": {"image_token": "<image>"}}}),
        None,
    ),
    "tokenizer.model and added_tokens.json": (
        Directory(
            tokenizer="tokenizer.model",
            vocab_size=512,
            files={
                "added_tokens.json": {"<|im_start|>": FIRST_FREE_PIECE, "<|im_end|>": FIRST_FREE_PIECE + 1},
                "tokenizer_config.json": {"add_bos_token": True, "legacy": False},
            },
        ),
        None,
    ),
    "vocab.json and merges.txt": (
        Directory("qwen2", tokenizer="vocab.json", files={"added_tokens.json": {"<|tool|>": FIRST_FREE - 3}}),
        None,
    ),
    "a merge without its result": (
        Directory(edit=lambda d: (d / "tokenizer.json").write_text(json.dumps(without_a_result(d)))),
        "tokenizer.json is not a tokenizer",
    ),
    "several end ids": (Directory(generation=dict(eos_token_id=[7, 285, 221])), None),
    "end id -1": (Directory(config=dict(eos_token_id=-1), generation=dict(eos_token_id=-1)), None),
    "end id that is text": (Directory(generation=dict(eos_token_id="</s>")), "eos_token_id is '</s>'; expected"),
    "padding id -1": (Directory(config=dict(pad_token_id=-1), generation=dict(pad_token_id=DROPPED)), None),
    "<pad> beyond the embedding": (
        Directory(vocab_size=FIRST_FREE, files={"tokenizer_config.json": {"pad_token": "<pad>"}}),
        None,
    ),
    "2^40 layers": (Directory(config=dict(num_hidden_layers=2**40)), "num_hidden_layers is 1099511627776; expected"),
}


def without_a_result(directory):
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    del tokenizer["model"]["vocab"]["".join(tokenizer["model"]["merges"][5])]
    return tokenizer


def generated(source, out):
    """Our greedy tokens after PROMPT, computed in float32, and our ids of TEXTS."""
    convert_checkpoint(source, out / "checkpoint", dtype="float32", progress=False)
    build_engine(out / "checkpoint", out / "engine", OPTIONS, progress=False)
    with LLM(out / "engine", num_threads=1) as llm:
        (output,) = llm.generate([PROMPT], SamplingParams(temperature=0, max_tokens=NUM_TOKENS))
        return output.outputs[0].token_ids, [llm.get_tokenizer().encode(text) for text in TEXTS]


def reference_tokens(model):
    """transformers' greedy tokens after PROMPT, less the end."""
    prompt = torch.tensor([PROMPT])
    tokens = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=NUM_TOKENS, do_sample=False, num_beams=1
    )[0, len(PROMPT) :].tolist()
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    return tokens[:-1] if tokens[-1] in ends else tokens


def test_a_request_with_a_token_beyond_the_embedding_is_refused(tmp_path):
    source = DIRECTORIES["<pad> beyond the embedding"][0].write(tmp_path / "model")
    convert_checkpoint(source, tmp_path / "checkpoint", progress=False)
    build_engine(tmp_path / "checkpoint", tmp_path / "engine", OPTIONS, progress=False)
    with LLM(tmp_path / "engine", num_threads=1) as llm:
        with pytest.raises(InflightError, match=f"{FIRST_FREE}.* token ids of this model are 0 to {FIRST_FREE - 1}"):
            llm.generate("The<pad>", SamplingParams(max_tokens=1))
        assert llm.generate("The dog", SamplingParams(max_tokens=1))


def row(name, outcome):
    print(f"\n| {name} | {outcome} |")


def refusal(source, out, expected):
    with pytest.raises(InflightError, match=expected) as error:
        generated(source, out)
    text = str(error.value)
    assert "\n" not in text and str(source.parent) in text
    return text.replace(f"{source.parent}/", "")


@pytest.mark.parametrize("name", DIRECTORIES)
def test_directories(name, tmp_path):
    directory, refused = DIRECTORIES[name]
    source = directory.write(tmp_path / "model")
    if refused is not None:
        row(name, refusal(source, tmp_path, refused))
        return
    tokens, ids = generated(source, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, attn_implementation="eager")
    assert tokens == reference_tokens(model)
    tokenizer = AutoTokenizer.from_pretrained(source)
    assert ids == [tokenizer.encode(text) for text in TEXTS]
    row(name, f"transformers' ids and tokens ({len(tokens)} of them)")


def drop_key(key):
    return lambda writer: writer.kv_data[0].pop(key)


def text_as_end_id(writer):
    drop_key("tokenizer.ggml.eos_token_id")(writer)
    writer.add_string("tokenizer.ggml.eos_token_id", "x")


def chatml(writer):
    """A turn's end of type NORMAL, as some converters wrote it; the end of a text is another one."""
    types = writer.kv_data[0]["tokenizer.ggml.token_type"].value
    types[TURN_END] = 1


TURN_END = 280  # a token that the model generates
WITH_TURN_END = [*gguf_models.TOKENS, *(f"[PAD{i}]" for i in range(len(gguf_models.TOKENS), TURN_END)), "<|im_end|>"]


TYPES = "F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS".split()
GGUF_FILES: dict[str, tuple[dict, str | None]] = {
    **{kind: (gguf_blocks(GgmlType[kind]), None) for kind in TYPES},
    "tied": (dict(name="llama-tied"), None),
    "qwen2": (dict(name="qwen2"), None),
    "qwen3": (dict(name="qwen3"), None),
    "padding id none": (dict(edit=lambda writer: writer.add_pad_token_id(2**32 - 1)), None),
    "no end id": (dict(edit=drop_key("tokenizer.ggml.eos_token_id")), None),
    "<|im_end|> of type NORMAL": (dict(tokens=WITH_TURN_END, edit=chatml), None),
    "another architecture": (
        dict(edit=lambda writer: writer.add_string("general.architecture", "gemma2")),
        "general.architecture is 'gemma2'; expected one of",
    ),
    "an end id of another type": (
        dict(edit=text_as_end_id),
        "eos_token_id is",
    ),
}


@pytest.mark.parametrize("name", GGUF_FILES)
def test_gguf_files(name, tmp_path):
    options, refused = GGUF_FILES[name]
    (tmp_path / "model").mkdir()
    source = gguf_file(tmp_path / "model" / "model.gguf", **options)
    if refused is not None:
        row(f"GGUF: {name}", refusal(source, tmp_path, refused))
        return
    tokens, _ = generated(source, tmp_path)
    if "edit" in options:  # transformers has other defaults than llama.cpp, or refuses it
        model = gguf_model()
        model.generation_config.eos_token_id = [2, TURN_END] if "tokens" in options else 2
    else:
        model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    assert tokens == reference_tokens(model)
    row(f"GGUF: {name}", f"transformers' tokens ({len(tokens)} of them)")

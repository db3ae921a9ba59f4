"""An engine's config.json and the options that it comes from."""

import json

import pytest

from inflight.checkpoint.config import ModelConfig
from inflight.engine.config import BuildConfig, BuildOptions, EngineConfig
from inflight.errors import InflightError


@pytest.fixture
def config(checkpoint):
    build = BuildConfig("cpu", 4, 64, 128, 16, 1 << 20, 1 << 19, max_beam_width=3)
    return EngineConfig(ModelConfig.load(checkpoint), build)


def test_saved_configurations_load_again(config, tmp_path):
    config.save(tmp_path)
    assert EngineConfig.load(tmp_path) == config
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["format"] == "inflight-engine"
    assert saved["pretrained_config"]["format"] == "inflight-checkpoint"
    assert saved["build_config"] == {
        "device": "cpu",
        "max_batch_size": 4,
        "max_num_tokens": 64,
        "max_seq_len": 128,
        "tokens_per_block": 16,
        "kv_cache_bytes": 1 << 20,
        "logits_bytes": 1 << 19,
        "kv_cache_dtype": "float32",
        "max_beam_width": 3,
    }


@pytest.mark.parametrize(
    "section, field, value, message",
    [
        (None, "format", "inflight-checkpoint", "format is 'inflight-checkpoint'; expected 'inflight-engine'"),
        (None, "version", 9, "version is 9; expected 1: run `inflight build` again"),
        ("build_config", "device", "cuda", "build_config: device is 'cuda'; expected one of cpu"),
        ("build_config", "max_seq_len", 1, "build_config: max_seq_len is 1; expected an integer of at least 2"),
        ("build_config", "tokens_per_block", 24, "build_config: tokens_per_block is 24; expected a power of two"),
        (
            "build_config",
            "max_num_tokens",
            3,
            "build_config: max_num_tokens is 3; expected at least max_batch_size (4)",
        ),
        ("build_config", "max_beam_width", 0, "build_config: max_beam_width is 0; expected an integer of at least 1"),
        ("build_config", "max_beam_width", 5, "max_beam_width is 5; expected at most max_batch_size (4)"),
        ("build_config", "kv_cache_dtype", "fp8", "kv_cache_dtype is 'fp8'; expected one of float32, bfloat16"),
        ("pretrained_config", "hidden_size", None, "pretrained_config: hidden_size is None; expected an integer"),
    ],
)
def test_names_each_bad_field(section, field, value, message, config):
    fields = config.to_dict()
    (fields if section is None else fields[section])[field] = value
    with pytest.raises(InflightError) as error:
        EngineConfig.from_dict(fields, "some/config.json")
    assert message in str(error.value) and str(error.value).startswith("some/config.json: ")


def test_says_how_to_make_an_engine(tmp_path):
    with pytest.raises(InflightError, match="is not an engine: it has no config.json .*inflight build"):
        EngineConfig.load(tmp_path)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(max_batch_size=0), "--max-batch-size is 0; expected an integer of at least 1"),
        (dict(max_num_tokens=-1), "--max-num-tokens is -1; expected an integer of at least 1"),
        (dict(max_seq_len=1), "--max-seq-len is 1; expected an integer of at least 2"),
        (dict(tokens_per_block=48), "--tokens-per-block is 48; expected a power of two"),
        (dict(kv_cache_memory=1.5), "--kv-cache-memory is 1.5; expected an integer"),
        (dict(max_batch_size=8, max_num_tokens=4), "--max-num-tokens is 4; expected at least --max-batch-size (8)"),
        (dict(max_beam_width=0), "--max-beam-width is 0; expected an integer of at least 1"),
        (dict(max_beam_width=9, max_batch_size=8), "--max-beam-width is 9; expected at most --max-batch-size (8)"),
        (dict(max_beam_width=9, max_num_tokens=8), "--max-beam-width is 9; expected at most --max-num-tokens (8)"),
        (dict(device="tpu"), "--device is 'tpu'; expected one of cpu"),
        (dict(dtype="int3"), "dtype is 'int3'; expected one of auto, float32"),
    ],
)
def test_names_each_bad_option(options, message):
    with pytest.raises(InflightError) as error:
        BuildOptions(**options).check()
    assert message in str(error.value)

"""A checkpoint's config.json: what is saved loads again; each bad field is named."""

import copy
import json

import pytest
from model_fields import model_fields

from inflight.checkpoint.config import ModelConfig
from inflight.errors import InflightError

YARN = {"type": "yarn", "theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64, "truncate": False}
FIELDS = model_fields(vocab_size=100, rope=YARN, layer_windows=[0, 32], end_ids=[2, 3])


def test_saved_configurations_load_again(tmp_path):
    config = ModelConfig.from_dict(FIELDS)
    config.save(tmp_path)
    assert ModelConfig.load(tmp_path) == config
    assert json.loads((tmp_path / "config.json").read_text()) == FIELDS


@pytest.mark.parametrize("name", FIELDS)
def test_names_each_missing_field(name):
    fields = {key: value for key, value in FIELDS.items() if key not in (name,)}
    if name == "bos_id":
        assert ModelConfig.from_dict(fields).bos_id is None
        return
    with pytest.raises(InflightError, match=f"some/config.json: {name} is missing"):
        ModelConfig.from_dict(fields, "some/config.json")


@pytest.mark.parametrize(
    "path, value, message",
    [
        (("format",), "inflight-engine", "format is 'inflight-engine'; expected 'inflight-checkpoint'"),
        (("version",), 2, "version is 2; expected 1: run `inflight convert` again"),
        (("hidden_size",), 0, "hidden_size is 0; expected an integer of at least 1"),
        (("hidden_size",), True, "hidden_size is True; expected an integer"),
        (("hidden_size",), 64.0, "hidden_size is 64.0; expected an integer"),
        (("norm_epsilon",), float("nan"), "norm_epsilon is nan; expected a number above 0"),
        (("qkv_bias",), 1, "qkv_bias is 1; expected true or false"),
        (("head_size",), 15, "head_size is 15; expected an even number"),
        (("layer_windows",), [0], "layer_windows is [0]; expected a list of 2 integers"),
        (("layer_windows",), [0, -1], "layer_windows is [0, -1]; expected a list of 2 integers of at least 0"),
        (("end_ids",), [100], "end_ids is [100]; expected token ids below vocab_size (100)"),
        (("pad_id",), 100, "pad_id is 100; expected token ids below vocab_size (100)"),
        (("rope",), [], "rope is []; expected a JSON object"),
        (("rope", "type"), "longrope", "rope: type is 'longrope'; expected one of default, linear"),
        (("rope", "factor"), "4", "rope: factor is '4'; expected a number above 0"),
        (("rope", "mrope_section"), [1], "rope: mrope_section is [1]; expected no such key for rope type yarn"),
        (("mapping", "tp_size"), 2, "mapping: tp_size is 2; expected one of 1"),
    ],
)
def test_names_each_bad_field(path, value, message):
    fields = copy.deepcopy(FIELDS)
    target = fields
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(InflightError) as error:
        ModelConfig.from_dict(fields, "some/config.json")
    assert message in str(error.value) and str(error.value).startswith("some/config.json: ")


@pytest.mark.parametrize(
    "rope",
    [
        {"type": "yarn"},
        {"type": "yarn", "factor": 4.0},
        {"type": "yarn", "original_max_position_embeddings": 64},
        {"type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    ],
)
def test_what_the_engine_has_a_default_for_may_be_left_out(rope):
    rope = rope | {"theta": 1e4}
    assert ModelConfig.from_dict(FIELDS | {"rope": rope}).rope == rope


def test_llama3_frequencies_must_leave_a_range():
    rope = {"type": "llama3", "theta": 1e4, "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0}
    with pytest.raises(InflightError, match=r"high_freq_factor is 4.0; expected a number above low_freq_factor \(4\)"):
        ModelConfig.from_dict(FIELDS | {"rope": rope})


def test_says_how_to_make_a_checkpoint(tmp_path):
    with pytest.raises(InflightError, match="is not a checkpoint: it has no config.json .*inflight convert"):
        ModelConfig.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InflightError, match="config.json is not JSON"):
        ModelConfig.load(tmp_path)
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(InflightError, match="config.json is not JSON: maximum recursion depth"):
        ModelConfig.load(tmp_path)

"""`inflight repo`: every value filled, from the engine; nothing foreign overwritten."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import text_format
from stub_engine import write_engine
from tritonclient.grpc.model_config_pb2 import ModelConfig

from inflight.cli import main
from inflight.errors import InflightError
from inflight.repository.check import check_repository
from inflight.repository.generate import MODELS, generate_repository


def configs(repository):
    return {model: (repository / model / "config.pbtxt").read_text() for model in MODELS}


def test_all_five_models_are_filled_and_consistent(engine, tmp_path):
    out = generate_repository(engine, tmp_path / "repository")
    texts = configs(out)
    assert not any("${" in text for text in texts.values())
    assert all("max_batch_size: 8\n" in text for text in texts.values())
    assert f'"{engine}"' in texts["tensorrt_llm"] and f'"{engine}/tokenizer"' in texts["postprocessing"]
    assert all((out / model / "1").is_dir() for model in MODELS)
    check_repository(out)


def test_paths_are_absolute(engine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    generate_repository("engine", "repository")
    assert f'"{engine}"' in configs(tmp_path / "repository")["tensorrt_llm"]


@pytest.mark.parametrize("content", ['{"version": "1.0"', "{}"])
def test_an_engine_with_a_damaged_tokenizer_is_refused(content, engine, tmp_path, capsys):
    (engine / "tokenizer" / "tokenizer.json").write_text(content)
    assert main(["repo", str(engine), "--out", str(tmp_path / "repository")]) == 1
    error = capsys.readouterr().err
    assert f"{engine}/tokenizer/tokenizer.json is not a tokenizer" in error and error.count("\n") == 1
    assert not (tmp_path / "repository").exists()


def test_overrides_win(engine, tmp_path):
    out = tmp_path / "repository"
    settings = ["--set", "max_queue_size=7", "--set", "decoupled_mode=false"]
    assert main(["repo", str(engine), "--out", str(out), *settings]) == 0
    assert 'key: "max_queue_size"  value { string_value: "7" }' in configs(out)["tensorrt_llm"]
    assert "decoupled: false" in configs(out)["tensorrt_llm"]


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"max_queue_siz": 1}, "no such template variable: max_queue_siz; there are"),
        ({"triton_max_batch_size": 0}, "max_batch_size (${triton_max_batch_size}) is 0; fill in at least 1"),
        ({"triton_max_batch_size": ""}, "triton_max_batch_size must have a value"),
        ({"triton_max_batch_size": "many"}, "OUT/ensemble/config.pbtxt: line 3"),
        ({"triton_max_batch_size": '8 name: "x"'}, "its place in the template takes no '\"'"),
        ({"triton_max_batch_size": "8\n"}, "its place in the template takes no '\\n'"),
        (
            {"tokenizer_dir": "/nope"},
            "OUT/preprocessing/config.pbtxt: parameter tokenizer_dir (${tokenizer_dir}) is /nope",
        ),
        ({"engine_dir": "/nope"}, "OUT/tensorrt_llm/config.pbtxt: parameter gpt_model_path (${engine_dir}) is /nope"),
        ({"tensorrt_llm_model_name": "llama"}, "OUT/tensorrt_llm_bls/config.pbtxt: parameter tensorrt_llm_model_name"),
        ({"decoding_mode": "a\ud800"}, "decoding_mode is 'a\\ud800', which is not valid Unicode text"),
    ],
)
def test_overrides_that_cannot_be_are_refused(engine, tmp_path, overrides, message):
    out = tmp_path / "repository"
    with pytest.raises(InflightError, match=re.escape(message.replace("OUT", str(out)))):
        generate_repository(engine, out, **overrides)
    assert [path.name for path in tmp_path.iterdir()] == ["engine"]


def test_a_draft_engine_and_how_much_it_drafts(engine, tmp_path, monkeypatch):
    write_engine(tmp_path / "draft")
    monkeypatch.chdir(tmp_path)
    assert main(["repo", "engine", "--out", "repository", "--draft-engine", "draft", "--num-draft-tokens", "3"]) == 0
    config = text_format.Parse(configs(tmp_path / "repository")["tensorrt_llm"], ModelConfig())
    assert config.parameters["draft_engine_dir"].string_value == str(tmp_path / "draft")
    assert config.parameters["num_draft_tokens"].string_value == "3"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--num-draft-tokens", "3"], "--num-draft-tokens 3 needs --draft-engine"),
        (["--draft-engine", "engine", "--num-draft-tokens", "0"], "--num-draft-tokens is 0; it must be at least 1"),
        (["--draft-engine", "/nowhere"], "parameter draft_engine_dir (${draft_engine_dir}) is /nowhere, a directory"),
    ],
)
def test_drafts_that_cannot_be_are_refused(engine, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["repo", "engine", "--out", "repository", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_quotes_backslashes_and_line_breaks_stay_in_their_string(engine, tmp_path):
    value = 'a "quoted" \\ and\na line'
    out = generate_repository(engine, tmp_path / "repository", decoding_mode=value)
    config = text_format.Parse(configs(out)["tensorrt_llm"], ModelConfig())
    assert config.parameters["decoding_mode"].string_value == value


def test_an_earlier_repository_is_replaced(engine, tmp_path):
    out = generate_repository(engine, tmp_path / "repository", max_queue_size=1)
    generate_repository(engine, out, max_queue_size=2)
    assert 'key: "max_queue_size"  value { string_value: "2" }' in configs(out)["tensorrt_llm"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["engine", "repository"]


def test_an_earlier_repository_comes_back_when_it_cannot_be_replaced(engine, tmp_path, monkeypatch):
    out = generate_repository(engine, tmp_path / "repository", max_queue_size=1)
    rename = Path.rename

    def fail_for_the_new_one(path, target):
        if path.name == out.name and path != out:
            raise OSError(errno.EXDEV, "Invalid cross-device link", str(target))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new_one)
    with pytest.raises(InflightError, match=f"cannot write {out}: Invalid cross-device link"):
        generate_repository(engine, out, max_queue_size=2)
    assert 'key: "max_queue_size"  value { string_value: "1" }' in configs(out)["tensorrt_llm"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["engine", "repository"]


def test_a_foreign_directory_is_left_alone(engine, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("42")
    with pytest.raises(InflightError, match="is not a model repository"):
        generate_repository(engine, tmp_path / "home")
    assert (tmp_path / "home" / "thesis.tex").read_text() == "42"


def test_what_is_not_an_engine_is_refused(tmp_path, capsys):
    assert main(["repo", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "is not an engine" in capsys.readouterr().err


def test_files_are_utf8_whatever_the_locale(engine, tmp_path):
    program = f"""
from inflight.repository.check import check_repository
from inflight.repository.generate import generate_repository
check_repository(generate_repository({str(engine)!r}, {str(tmp_path / "out")!r}, decoding_mode={"模型"!a}))"""
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert '"模型"' in (tmp_path / "out" / "tensorrt_llm" / "config.pbtxt").read_text(encoding="utf-8")

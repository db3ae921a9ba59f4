"""Which repositories a real server loads, and what it says about those that it does not."""

import re
import shutil
from pathlib import Path

import http_client
import pytest

REQUEST = {"text_input": "a b c", "max_tokens": 8}


def edit(repository: Path, model: str, pattern: str, replacement: str) -> None:
    config = repository / model / "config.pbtxt"
    text, count = re.subn(pattern, replacement, config.read_text())
    assert count, f"{config} has no {pattern}"
    config.write_text(text)


def set_parameter(repository: Path, model: str, name: str, value: str) -> None:
    edit(repository, model, rf'(key: "{name}"\s+value {{ string_value: ")[^"]*"', rf'\g<1>{value}"')


@pytest.fixture
def repository(tiny_server_engine, make_repository) -> Path:
    return make_repository(tiny_server_engine)


@pytest.fixture
def serve(tmp_path):
    from inflight.launcher.server import TritonServer

    return lambda repository: TritonServer(repository, log_file=tmp_path / "log")


def test_backend_name_and_unfilled_variables_of_upstream(repository, serve):
    edit(repository, "tensorrt_llm", 'backend: "inflight"', 'backend: "tensorrtllm"')
    for name in (
        "max_queue_size",
        "max_tokens_in_paged_kv_cache",
        "enable_kv_cache_reuse",
        "lora_cache_max_adapter_size",
    ):
        set_parameter(repository, "tensorrt_llm", name, f"${{{name}}}")
    with serve(repository) as server:
        assert http_client.generate(server.http_port, REQUEST)["text_output"].startswith("a b c")


def test_cut_engine_is_refused(repository, tiny_server_engine, tmp_path, serve):
    from inflight.errors import InflightError

    engine = shutil.copytree(tiny_server_engine, tmp_path / "engine")
    weights = engine / "rank0.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    set_parameter(repository, "tensorrt_llm", "gpt_model_path", str(engine))
    with pytest.raises(InflightError, match="rank0.safetensors"), serve(repository):
        pass


def test_foreign_file_as_engine_is_refused(repository, tiny_server_engine, tmp_path, serve):
    from inflight.errors import InflightError

    engine = shutil.copytree(tiny_server_engine, tmp_path / "engine")
    (engine / "rank0.safetensors").write_bytes(b"GGUF" * 1000)
    set_parameter(repository, "tensorrt_llm", "gpt_model_path", str(engine))
    with pytest.raises(InflightError, match="rank0.safetensors"), serve(repository):
        pass


def test_tokenizer_of_another_model_is_refused(repository, smollm2_engine, serve):
    from inflight.errors import InflightError

    for model in ("preprocessing", "postprocessing"):
        set_parameter(repository, model, "tokenizer_dir", str(smollm2_engine() / "tokenizer"))
    with pytest.raises(InflightError, match="tokenizer.*49152"), serve(repository):
        pass


@pytest.mark.parametrize("model", ["ensemble", "tensorrt_llm_bls"])
def test_one_response_a_request_without_decoupled_mode(repository, serve, model):
    edit(repository, "tensorrt_llm", "decoupled: true", "decoupled: false")
    inputs = {"text_input": ("BYTES", [1, 1], [REQUEST["text_input"]]), "max_tokens": ("INT32", [1, 1], [8])}
    with serve(repository) as server:
        answer = http_client.infer(server.http_port, model, inputs)
        assert answer.status == 200, answer
        (text,) = [output["data"][0] for output in answer.body["outputs"] if output["name"] == "text_output"]
        assert text == http_client.generate(server.http_port, {**REQUEST, "max_tokens": 8}, model)["text_output"]

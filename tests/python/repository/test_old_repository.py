"""`inflight repo --from`: what an old repository says is kept, and its stock models are replaced."""

import shutil

import pytest
from google.protobuf import text_format
from stub_engine import write_engine
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig

from inflight.cli import main
from inflight.repository.check import check_repository
from inflight.repository.python_code import is_ours

OLD_UNSIGNED = {
    "ensemble": "max_tokens end_id pad_id top_k min_length beam_width prompt_vocab_size".split(),
    "preprocessing": "REQUEST_OUTPUT_LEN END_ID PAD_ID".split(),
    "tensorrt_llm": "request_output_len end_id pad_id runtime_top_k min_length beam_width prompt_vocab_size".split(),
    "postprocessing": [],
}


def config(repository, model) -> ModelConfig:
    return text_format.Parse((repository / model / "config.pbtxt").read_text(), ModelConfig())


def parameter(repository, model, name) -> str:
    return config(repository, model).parameters[name].string_value


@pytest.fixture
def old(make_upstream_repository):
    """Batches and policies of one's own, and a model that upstream does not have."""
    repository = make_upstream_repository(
        triton_max_batch_size=4, decoupled_mode="True", skip_special_tokens="False", engine_dir="/gone/engine",
        tokenizer_dir="/gone/tokenizer", max_queue_delay_microseconds=100, accumulate_tokens="true",
    )  # fmt: skip
    llm = repository / "tensorrt_llm" / "config.pbtxt"
    llm.write_text(
        llm.read_text().replace("dynamic_batching {", "dynamic_batching { default_queue_policy: { max_queue_size: 33 }")
        + 'parameters: { key: "batch_scheduler_policy" value: { string_value: "max_utilization" } }\n'
        + 'parameters: { key: "exclude_input_in_output" value: { string_value: "True" } }\n'
        + 'parameters: { key: "kv_cache_free_gpu_mem_fraction" value: { string_value: "0.5" } }\n'
        + 'parameters: { key: "executor_worker_path" value: { string_value: "/opt/worker" } }\n'
        + 'output [ { name: "context_logits" data_type: TYPE_FP16 dims: [ -1, -1 ] } ]\n'
    )
    for model in ("preprocessing", "postprocessing", "tensorrt_llm_bls"):
        (repository / model / "1").mkdir()
        (repository / model / "1" / "model.py").write_text("import tensorrt\n")
    (repository / "router" / "1").mkdir(parents=True)
    (repository / "router" / "config.pbtxt").write_text('backend: "python"\n')
    (repository / "router" / "1" / "model.py").write_text("import json\n")
    return repository


def test_its_values_are_kept_and_its_models_are_ours(old, engine, tmp_path, capsys):
    new = tmp_path / "new"
    assert main(["repo", str(engine), "--from", str(old), "--out", str(new)]) == 0
    said = capsys.readouterr().out
    assert "tensorrt_llm: kept batch_scheduler_policy=max_utilization, decoupled_mode=true, " in said
    assert "tensorrt_llm: not known here, left out: executor_worker_path\n" in said and "copied: router\n" in said
    check_repository(new)
    assert config(new, "ensemble").max_batch_size == 4 and config(new, "tensorrt_llm").max_batch_size == 4
    assert config(new, "tensorrt_llm").model_transaction_policy.decoupled
    kept = {
        "batch_scheduler_policy": "max_utilization",
        "exclude_input_in_output": "True",
        "kv_cache_free_gpu_mem_fraction": "0.5",
        "max_queue_size": "33",
        "skip_special_tokens": "False",
        "medusa_choices": "",  # unfilled there
        "gpt_model_path": str(engine),
    }
    assert {name: parameter(new, "tensorrt_llm", name) for name in kept} == kept
    assert parameter(new, "postprocessing", "skip_special_tokens") == "False"
    assert parameter(new, "preprocessing", "tokenizer_dir") == str(engine / "tokenizer")
    assert {output.data_type for output in config(new, "tensorrt_llm").output if "logits" in output.name} == {
        ModelConfig().output.add(data_type="TYPE_FP16").data_type
    }
    assert all(is_ours(new / model) for model in ("preprocessing", "postprocessing", "tensorrt_llm_bls"))
    assert (new / "router" / "1" / "model.py").read_text() == "import json\n"


def test_clients_that_send_integers_without_a_sign_are_served_on(old, engine, tmp_path):
    """As those of 0.5 and 0.6 do, whose tensorrt_llm says so."""
    llm = old / "tensorrt_llm" / "config.pbtxt"
    types = {"request_output_len": "TYPE_UINT32", "end_id": "TYPE_UINT32", "random_seed": "TYPE_UINT64"}
    inputs = ", ".join(f'{{ name: "{name}" data_type: {type_} dims: [ 1 ] }}' for name, type_ in types.items())
    llm.write_text(f"{llm.read_text()}input [ {inputs} ]\n")
    new = tmp_path / "new"
    assert main(["repo", str(engine), "--from", str(old), "--out", str(new)]) == 0
    unsigned = DataType.TYPE_UINT32
    for model, names in OLD_UNSIGNED.items():
        found = {tensor.name for tensor in config(new, model).input if tensor.data_type == unsigned}
        assert found == set(names), model
    given = {tensor.name for tensor in config(new, "preprocessing").output if tensor.data_type == unsigned}
    assert given == {"REQUEST_OUTPUT_LEN", "OUT_END_ID", "OUT_PAD_ID"}


def test_outputs_that_nobody_asks_for_are_written_on(old, engine, tmp_path):
    """As up to 0.13, which knew no sequence_index."""
    llm = old / "tensorrt_llm" / "config.pbtxt"
    for number, expected in enumerate(("true", None)):
        new = tmp_path / str(number)
        assert main(["repo", str(engine), "--from", str(old), "--out", str(new)]) == 0
        filled = config(new, "tensorrt_llm").parameters
        assert (filled["fill_unasked_outputs"].string_value if "fill_unasked_outputs" in filled else None) == expected
        llm.write_text(llm.read_text() + 'output [ { name: "sequence_index" data_type: TYPE_INT32 dims: [ 1 ] } ]\n')


def test_what_is_given_wins(old, engine, tmp_path):
    new = tmp_path / "new"
    arguments = ["--set", "max_queue_size=5", "--set", "triton_max_batch_size=2"]
    assert main(["repo", str(engine), "--from", str(old), "--out", str(new), *arguments]) == 0
    assert parameter(new, "tensorrt_llm", "max_queue_size") == "5"
    assert config(new, "postprocessing").max_batch_size == 2


def test_an_engine_takes_the_place_of_a_draft_model(old, engine, tmp_path, capsys):
    bls = old / "tensorrt_llm_bls" / "config.pbtxt"
    bls.write_text(
        bls.read_text() + 'parameters: { key: "tensorrt_llm_draft_model_name" value: { string_value: "draft" } }\n'
    )
    command = ["repo", str(engine), "--from", str(old), "--out", str(tmp_path / "new")]
    assert main(command) == 1
    assert "tensorrt_llm_draft_model_name (${tensorrt_llm_draft_model_name}) is draft" in capsys.readouterr().err
    draft_engine = write_engine(tmp_path / "draft")
    assert main([*command, "--draft-engine", str(draft_engine)]) == 0
    assert parameter(tmp_path / "new", "tensorrt_llm", "draft_engine_dir") == str(draft_engine)


def test_it_stays_as_it_is(old, engine, capsys):
    assert main(["repo", str(engine), "--from", str(old), "--out", str(old)]) == 1
    assert f"--out {old} is the old repository; give another directory" in capsys.readouterr().err
    shutil.rmtree(old / "tensorrt_llm")
    assert main(["repo", str(engine), "--from", str(old), "--out", str(old.parent / "new")]) == 1
    assert "is no model repository of upstream's: it has no tensorrt_llm/config.pbtxt" in capsys.readouterr().err

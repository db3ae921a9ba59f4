"""What is reported of a log, in tritonserver 2.51's own words."""

from inflight.launcher.failure import explain_failure

PYTHON_MODEL = r"""
I1120 17:07:15.508375 11912 model_lifecycle.cc:839] "successfully loaded 'good'"
E1120 17:07:15.642874 11912 backend_model.cc:692] "ERROR: Failed to create instance: RuntimeError: tokenizer_dir is '/nowhere'\n\nAt:\n  /repo/bad/1/model.py(3): initialize\n"
E1120 17:07:15.642966 11912 model_lifecycle.cc:642] "failed to load 'bad' version 1: Internal: RuntimeError: tokenizer_dir is '/nowhere'\n\nAt:\n  /repo/bad/1/model.py(3): initialize\n"
I1120 17:07:15.642982 11912 model_lifecycle.cc:777] "failed to load 'bad'"
E1120 17:07:15.643029 11912 model_repository_manager.cc:703] "Invalid argument: ensemble 'ens' depends on 'bad' which has no loaded version. Model 'bad' loading failed with error: version 1 is at UNAVAILABLE state: Internal: RuntimeError: tokenizer_dir is '/nowhere'"
error: creating server: Internal - failed to load all models
"""

UNFILLED_TEMPLATE = r"""
[libprotobuf ERROR /tmp/protobuf/text_format.cc:337] Error parsing text-format inference.ModelConfig: 1:29: Expected integer, got: $
E1120 17:07:15.281819 11912 model_repository_manager.cc:1460] "Poll failed for model directory 'cfg': failed to read text proto from repo/cfg/config.pbtxt"
"""

PORT_TAKEN = r"""
E1120 17:07:24.859927 12155 main.cc:245] "failed to start GRPC service: Unavailable - Socket '0.0.0.0:18001' already in use "
"""

MISSING_MODEL = r"""
E1120 17:07:15.643029 11912 model_repository_manager.cc:703] "Invalid argument: ensemble ensemble contains models that are not available or ambiguous: tensorrt_llm"
error: creating server: Internal - failed to load all models
"""


def test_model_error_without_where_python_raised_it():
    assert explain_failure(PYTHON_MODEL) == "model bad: RuntimeError: tokenizer_dir is '/nowhere'"


def test_unreadable_config_with_its_syntax_error():
    assert explain_failure(UNFILLED_TEMPLATE) == (
        "model cfg: failed to read text proto from repo/cfg/config.pbtxt (1:29: Expected integer, got: $)"
    )


def test_port_that_was_taken_meanwhile():
    assert explain_failure(PORT_TAKEN) == "GRPC service: Unavailable - Socket '0.0.0.0:18001' already in use"


def test_ensemble_whose_model_is_missing():
    assert "not available or ambiguous: tensorrt_llm" in explain_failure(MISSING_MODEL)


def test_several_models_are_all_named():
    reasons = explain_failure(PYTHON_MODEL + UNFILLED_TEMPLATE).splitlines()
    assert [reason.split(":")[0] for reason in reasons] == ["model bad", "model cfg"]


def test_otherwise_the_last_error():
    log = "E1120 17:07:24.1 1 server.cc:1] first\nerror: creating server: Internal - no idea\n"
    assert explain_failure(log) == "creating server: Internal - no idea"


def test_a_log_without_errors_has_no_reason():
    assert explain_failure("I1120 17:07:24.1 1 server.cc:1] fine\n") == ""

"""A model that cannot be served does not load, also where no launcher checks the repository first."""

import pytest

from inflight.errors import InflightError
from inflight.launcher import server
from inflight.launcher.server import TritonServer


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"engine_dir": "/nowhere"}, r'gpt_model_path is "/nowhere", which is not a directory'),
        ({"sink_token_length": 300, "max_attention_window_size": 64}, r"config.pbtxt: sink_token_length is 300"),
        ({"max_attention_window_size": 3}, r"config.pbtxt: max_attention_window_size is 3"),
        ({"decoding_mode": "medusa"}, r'parameter decoding_mode is "medusa"'),
        ({"logits_datatype": "TYPE_BF16"}, "logits_datatype must be TYPE_FP32 or TYPE_FP16"),
        ({"draft_engine_dir": "/nowhere"}, r'parameter draft_engine_dir is "/nowhere", which is not a directory'),
        ({"num_draft_tokens": 2}, r'parameter num_draft_tokens is "2"; it must be left empty, unless draft_engine_dir'),
        ({"max_beam_width": 9}, r"config.pbtxt: parameter max_beam_width is 9, but .*/config.json was built for 8"),
    ],
)
def test_error_of_the_model_is_reported(tmp_path, monkeypatch, write_model, values, expected):
    monkeypatch.setattr(server, "check_repository", lambda repository: None)
    write_model(tmp_path / "repository", "tensorrt_llm", **values)
    with pytest.raises(InflightError, match=expected):
        with TritonServer(tmp_path / "repository", log_file=tmp_path / "log"):
            pass


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("llama-odd-sizes", {}, r"its vocab_size is 431, the target's 480; both must have one tokenizer"),
        ("llama-tied", {"max_batch_size": 4}, r"its max_batch_size is 4, the target's 8; .* --max-batch-size 8"),
        ("llama-tied", {"max_seq_len": 128}, r"its max_seq_len is 128, the target's 256; .* --max-seq-len 256"),
    ],
)
def test_a_draft_engine_that_does_not_fit_is_refused(
    tmp_path, monkeypatch, write_model, tiny_engine, name, changes, expected
):
    monkeypatch.setattr(server, "check_repository", lambda repository: None)
    draft = tiny_engine(name, **{"max_batch_size": 8, "max_num_tokens": 64, "max_seq_len": 256} | changes)
    write_model(tmp_path / "repository", "tensorrt_llm", draft_engine_dir=draft)
    with pytest.raises(InflightError, match=f'config.pbtxt: parameter draft_engine_dir is "{draft}": .*{expected}'):
        with TritonServer(tmp_path / "repository", log_file=tmp_path / "log"):
            pass


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"num_draft_tokens": 0}, r'parameter num_draft_tokens is "0"; it must be 1 or more'),
        ({"decoding_mode": "prompt_lookup"}, r"it must be left empty with decoding_mode prompt_lookup"),
    ],
)
def test_contradictory_parameters_of_drafts_are_refused(tmp_path, monkeypatch, write_model, engine, values, expected):
    monkeypatch.setattr(server, "check_repository", lambda repository: None)
    write_model(tmp_path / "repository", "tensorrt_llm", draft_engine_dir=engine, **values)
    with pytest.raises(InflightError, match=expected):
        with TritonServer(tmp_path / "repository", log_file=tmp_path / "log"):
            pass

"""A model that cannot be served does not load, also where no launcher checks the repository first."""

import pytest

from inflight.errors import InflightError
from inflight.launcher import server
from inflight.launcher.server import TritonServer


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"engine_dir": "/nowhere"}, r'gpt_model_path is "/nowhere", which is not a directory'),
        ({"triton_max_batch_size": 9}, r"config.pbtxt: max_batch_size is 9, but .*/config.json was built for 8"),
        ({"sink_token_length": 300, "max_attention_window_size": 64}, r"config.pbtxt: sink_token_length is 300"),
        ({"max_attention_window_size": 3}, r"config.pbtxt: max_attention_window_size is 3"),
        ({"decoding_mode": "medusa"}, r'parameter decoding_mode is "medusa"'),
        ({"logits_datatype": "TYPE_BF16"}, "logits_datatype must be TYPE_FP32 or TYPE_FP16"),
        ({"max_beam_width": 9}, r"config.pbtxt: parameter max_beam_width is 9, but .*/config.json was built for 8"),
    ],
)
def test_error_of_the_model_is_reported(tmp_path, monkeypatch, write_model, values, expected):
    monkeypatch.setattr(server, "check_repository", lambda repository: None)
    write_model(tmp_path / "repository", "tensorrt_llm", **values)
    with pytest.raises(InflightError, match=expected):
        with TritonServer(tmp_path / "repository", log_file=tmp_path / "log"):
            pass

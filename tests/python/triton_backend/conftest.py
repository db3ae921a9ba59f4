"""One server with the model tensorrt_llm in every form that these tests ask for, over a tiny engine."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from old_repositories import make_old_generation

import inflight
from inflight.launcher.server import TritonServer
from inflight.repository.template import fill

MAX_SEQ_LEN = 256
MAX_BATCH_SIZE = 8
TEMPLATE = Path(inflight.__path__[0]) / "model_templates" / "tensorrt_llm"


@pytest.fixture(scope="package")
def engine(tiny_engine) -> Path:
    return tiny_engine("llama", max_batch_size=MAX_BATCH_SIZE, max_num_tokens=64, max_seq_len=MAX_SEQ_LEN)


@pytest.fixture(scope="package")
def write_model(engine) -> Callable[..., None]:
    """write_model(repository, name, **template_values): a filled copy of the template."""

    def write(repository: Path, name: str, **values) -> None:
        shutil.copytree(TEMPLATE, repository / name)
        (repository / name / "1").mkdir(exist_ok=True)
        values = {"triton_max_batch_size": MAX_BATCH_SIZE, "engine_dir": engine, **values}
        filled = fill((TEMPLATE / "config.pbtxt").read_text(), values).text
        filled = re.sub('name: "tensorrt_llm"', f'name: "{name}"', filled, count=1)
        (repository / name / "config.pbtxt").write_text(filled)

    return write


@pytest.fixture(scope="package")
def server(tmp_path_factory, write_model):
    """tensorrt_llm as the template has it (decoupled), `coupled`, `upstream_name` with backend tensorrtllm, `unbatched`
    with max_batch_size 0, `short_queue` for one waiting request, `unpaced` that sends responses as fast as they come,
    `measured` that serves one test module only, `version_0_6` with the inputs that TensorRT-LLM's repositories had,
    and others named after what they do."""
    repository = tmp_path_factory.mktemp("repository")
    write_model(repository, "tensorrt_llm")
    write_model(repository, "coupled", decoupled_mode=False, max_beam_width=4)
    write_model(repository, "upstream_name", triton_backend="tensorrtllm", decoupled_mode=False)
    write_model(repository, "short_queue", max_queue_size=1)
    write_model(repository, "unpaced", max_responses_per_second=0)
    write_model(repository, "measured", decoupled_mode=False, enable_kv_cache_reuse=False)
    write_model(repository, "half_logits", decoupled_mode=False, logits_datatype="TYPE_FP16")
    write_model(repository, "prompt_lookup", decoupled_mode=False, decoding_mode="prompt_lookup")
    write_model(repository, "reuse", decoupled_mode=False, enable_kv_cache_reuse=True)
    eight_blocks = {"decoupled_mode": False, "max_tokens_in_paged_kv_cache": 256}
    write_model(repository, "host_tier", enable_kv_cache_reuse=True, kv_cache_host_memory_bytes=2**22, **eight_blocks)
    seven_blocks = {"decoupled_mode": False, "max_tokens_in_paged_kv_cache": 224}
    write_model(repository, "no_window", **seven_blocks)
    write_model(repository, "window", max_attention_window_size=64, sink_token_length=4, **seven_blocks)
    write_model(repository, "max_utilization", decoupled_mode=False, batch_scheduler_policy="max_utilization")
    write_model(repository, "static_batch", decoupled_mode=False, batch_scheduler_policy="static_batch")
    write_model(repository, "v1", decoupled_mode=False, batching_strategy="v1")
    write_model(repository, "unbatched", triton_max_batch_size=0)
    config = repository / "unbatched" / "config.pbtxt"
    # Triton has no scalars without a batch dimension.
    config.write_text(config.read_text().replace("reshape: { shape: [ ] }", ""))
    write_model(repository, "version_0_6", exclude_input_in_output=True)
    make_old_generation(repository / "version_0_6" / "config.pbtxt")
    with TritonServer(repository) as server:
        yield server


@pytest.fixture
def http(server):
    with httpclient.InferenceServerClient(f"127.0.0.1:{server.http_port}", concurrency=4) as client:
        yield client


@pytest.fixture
def grpc(server):
    with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as client:
        yield client

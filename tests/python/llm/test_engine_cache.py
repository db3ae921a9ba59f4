import json
import os

import pytest

from inflight.errors import InflightError
from inflight.llm import LLM, SamplingParams, engine_cache
from inflight.llm.engine_cache import engine_directory

GREEDY = SamplingParams(temperature=0, max_tokens=5)


def test_a_model_is_built_once(tiny_directory, tmp_path):
    model = tiny_directory("llama-tied")
    with LLM(model, cache_dir=tmp_path, progress=False, max_batch_size=2, num_threads=1) as llm:
        first = llm.generate("a", GREEDY)[0].outputs
        assert llm.engine_dir.parent == tmp_path
    built = (llm.engine_dir / "config.json").stat().st_mtime_ns
    with LLM(model, cache_dir=tmp_path, progress=False, max_batch_size=2, num_threads=1) as again:
        assert again.generate("a", GREEDY)[0].outputs == first
    assert again.engine_dir == llm.engine_dir
    assert (llm.engine_dir / "config.json").stat().st_mtime_ns == built
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_other_options_and_a_changed_model_give_another_engine(tiny_directory, tmp_path):
    model = tiny_directory("llama-tied")
    build = lambda **options: engine_directory(model, tmp_path, False, max_batch_size=2, **options)  # noqa: E731
    engines = {build(), build(dtype="int8"), build(max_seq_len=64)}
    assert len(engines) == 3
    os.utime(model / "config.json")
    assert build() not in engines


def test_what_the_engine_depends_on_besides_gives_another_one(tiny_directory, tmp_path, monkeypatch):
    build = lambda **options: engine_directory(tiny_directory("llama-tied"), tmp_path, False, **options)  # noqa: E731
    with_memory = {"kv_cache_memory": 2**20, "max_batch_size": 2}
    plain, given = build(max_batch_size=2), build(**with_memory)
    with monkeypatch.context() as machine:
        machine.setattr(engine_cache, "total_memory", lambda: 2**33)
        assert build(max_batch_size=2) != plain, "the memory plan is the machine's"
        assert build(**with_memory) == given, "here it is the user's"
    with monkeypatch.context() as code:
        code.setattr(engine_cache, "_code", lambda: "another version of this package")
        assert build(**with_memory) != given
    assert build(max_batch_size=2) == plain


def test_the_cache_lies_in_xdg_cache_home(tiny_directory, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    engine = engine_directory(tiny_directory("llama-tied"), None, False, max_batch_size=2)
    assert engine.parent == tmp_path / "inflight"


def test_an_engine_is_used_in_place(engine_dir, tmp_path):
    assert engine_directory(engine_dir, tmp_path, False) == engine_dir
    assert not list(tmp_path.iterdir())
    with pytest.raises(InflightError, match="max_seq_len must be given to `inflight build`"):
        engine_directory(engine_dir, tmp_path, False, max_seq_len=64)


def test_an_unknown_option_is_named(tiny_directory, tmp_path):
    with pytest.raises(InflightError, match="no option max_batch; there are max_batch_size"):
        engine_directory(tiny_directory("llama-tied"), tmp_path, False, max_batch=2)


def test_a_path_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(InflightError, match="nowhere does not exist"):
        LLM(tmp_path / "nowhere")


@pytest.mark.parametrize("content", ["{", json.dumps([1])])
def test_a_config_that_is_no_object_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InflightError, match="config.json(:| is not)"):
        LLM(tmp_path)

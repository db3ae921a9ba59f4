"""check_repository: what is wrong is named with its file, its variable and the values."""

import json
import re
import shutil

import pytest
from small_tokenizers import byte_level, save
from stub_engine import write_engine
from tokenizers import Tokenizer
from tokenizers.models import BPE

from inflight.errors import InflightError
from inflight.repository.check import check_repository
from inflight.repository.generate import find_templates, generate_repository
from inflight.repository.hub_cache import tokenizer_directory


@pytest.fixture
def repository(engine, tmp_path):
    return generate_repository(engine, tmp_path / "repository")


def edit(file, old, new):
    text, changes = re.subn(old, new, file.read_text())
    assert changes
    file.write_text(text)


def assert_refused(repository, *parts):
    with pytest.raises(InflightError) as error:
        check_repository(repository)
    for part in parts:
        assert str(part) in str(error.value)
    return str(error.value)


def test_unfilled_templates_are_refused_with_every_variable_that_triton_would_trip_over(tmp_path):
    shutil.copytree(find_templates(), tmp_path / "repository")
    assert_refused(
        tmp_path / "repository",
        "ensemble/config.pbtxt: ${triton_max_batch_size} is unfilled",
        "tensorrt_llm/config.pbtxt: ${decoupled_mode} is unfilled; give it a value (its default is true)",
    )


def test_unfilled_optional_variables_pass(repository):
    for name in ("batch_scheduler_policy", "tokenizer_dir"):  # 0.19 has the tokenizer for guided decoding alone
        edit(repository / "tensorrt_llm" / "config.pbtxt", f'("{name}"[^"]*")[^"]*"', rf'\1${{{name}}}"')
    check_repository(repository)


@pytest.mark.parametrize(
    "model, parameter, variable",
    [
        ("tensorrt_llm", "gpt_model_path", "engine_dir"),
        ("preprocessing", "tokenizer_dir", "tokenizer_dir"),
        ("postprocessing", "tokenizer_dir", "tokenizer_dir"),
    ],
)
def test_required_paths_must_be_filled_and_exist(repository, model, parameter, variable):
    file = repository / model / "config.pbtxt"
    value = f'("{parameter}"[^"]*")[^"]*"'
    edit(file, value, rf'\1${{{variable}}}"')
    assert_refused(repository, file, f"parameter {parameter} (${{{variable}}}) is unfilled")
    edit(file, value, r'\1/nowhere"')
    assert_refused(repository, file, f"parameter {parameter} (${{{variable}}}) is /nowhere", "does not exist")


def test_engine_dir_stands_in_for_gpt_model_path(repository, engine):
    file = repository / "tensorrt_llm" / "config.pbtxt"
    edit(file, "gpt_model_path", "engine_dir")
    check_repository(repository)
    edit(file, '("engine_dir"[^"]*")[^"]*"', r'\1/nowhere"')
    assert_refused(repository, file, "parameter engine_dir (${engine_dir}) is /nowhere", "does not exist")


def test_ensembles_need_batches(repository):
    for file in repository.glob("*/config.pbtxt"):
        edit(file, "max_batch_size: 8", "max_batch_size: 0")
    message = assert_refused(
        repository, "config.pbtxt: max_batch_size (${triton_max_batch_size}) is 0; fill in at least 1"
    )
    assert all(str(file) in message for file in repository.glob("*/config.pbtxt")) and "\n" not in message


@pytest.mark.parametrize("model", ["ensemble", "tensorrt_llm_bls"])
def test_the_generating_model_may_have_another_name(repository, model):
    for caller in ("ensemble", "tensorrt_llm_bls"):
        edit(repository / caller / "config.pbtxt", '"tensorrt_llm"', '"llama"')
    missing = f"{model}/config.pbtxt: calls the model llama, which is not in the repository"
    assert_refused(repository, missing)
    (repository / "tensorrt_llm").rename(repository / "llama")
    check_repository(repository)


def set_batch_size(repository, model, size):
    edit(repository / model / "config.pbtxt", r"max_batch_size: \d+", f"max_batch_size: {size}")


@pytest.mark.parametrize("model", ["preprocessing", "tensorrt_llm", "postprocessing"])
def test_an_ensembles_batches_must_fit_into_its_steps(repository, model):
    set_batch_size(repository, model, 4)
    assert_refused(
        repository, f"{repository}/ensemble/config.pbtxt: max_batch_size", f"is 8, but 4 in {repository}/{model}/"
    )
    for ensemble in ("ensemble", "tensorrt_llm_bls"):
        set_batch_size(repository, ensemble, 4)
    check_repository(repository)


def test_a_model_without_batches_is_refused(repository):
    set_batch_size(repository, "postprocessing", 0)
    assert_refused(repository, f"{repository}/postprocessing/config.pbtxt: max_batch_size", "is 0; fill in at least 1")


def test_of_a_batch_size_beyond_the_engines_the_rest_waits(repository):
    for file in repository.glob("*/config.pbtxt"):
        set_batch_size(repository, file.parent.name, 128)
    check_repository(repository)


@pytest.mark.parametrize(
    ("model", "parameter", "reason"),
    [
        ("preprocessing", "visual_model_path", "multimodal models are not served"),
        ("tensorrt_llm_bls", "tensorrt_llm_draft_model_name", "give its engine as draft_engine_dir"),
        ("tensorrt_llm_bls", "tensorrt_llm_model_name", "its steps call preprocessing, tensorrt_llm, postprocessing"),
    ],
)
def test_what_would_be_lost_is_refused(repository, model, parameter, reason):
    file = repository / model / "config.pbtxt"
    edit(file, f'("{parameter}"[^"]*")[^"]*"', r'\1other"')
    assert_refused(repository, f"{file}: parameter {parameter} (${{{parameter}}}) is other", reason)


def test_beam_width_beyond_the_engine_is_refused(repository, engine):
    """stub_engine's takes one beam."""
    file = repository / "tensorrt_llm" / "config.pbtxt"
    edit(
        file, 'key: "max_beam_width"  value { string_value: "1" }', 'key: "max_beam_width"  value { string_value: "4" }'
    )
    assert_refused(
        repository,
        "tensorrt_llm/config.pbtxt: max_beam_width (${max_beam_width}) is 4",
        f"{engine}/config.json was built for 1",
        "--max-beam-width",
    )


def test_a_missing_model_is_refused(repository):
    shutil.rmtree(repository / "postprocessing")
    assert_refused(repository, "ensemble/config.pbtxt: calls the model postprocessing, which is not in the repository")


def use_tokenizer(repository, model, tokenizer_dir):
    edit(repository / model / "config.pbtxt", '("tokenizer_dir"[^"]*")[^"]*"', rf'\1{tokenizer_dir}"')


@pytest.fixture
def other_tokenizer(tmp_path):
    """One more token than the engine's."""
    fast = byte_level()
    fast.add_tokens(["<extra>"])
    return save(fast, tmp_path / "other")


@pytest.mark.parametrize("model", ["preprocessing", "postprocessing"])
def test_a_tokenizer_of_another_vocabulary_is_refused(repository, engine, other_tokenizer, model):
    use_tokenizer(repository, model, other_tokenizer)
    size = byte_level().get_vocab_size()
    assert_refused(
        repository,
        f"{model}/config.pbtxt: parameter tokenizer_dir",
        f"gives {other_tokenizer}/tokenizer.json, another tokenizer than {engine}/tokenizer/tokenizer.json",
        f"they have {size + 1} and {size} tokens, and the first that differs, '<extra>', is token {size} and none",
    )


def test_a_tokenizer_with_the_same_tokens_in_another_order_is_refused(repository, tmp_path):
    vocabulary = byte_level().get_vocab()
    vocabulary["!"], vocabulary['"'] = vocabulary['"'], vocabulary["!"]
    use_tokenizer(repository, "postprocessing", save(Tokenizer(BPE(vocabulary, [])), tmp_path / "other"))
    assert_refused(repository, "the first that differs, '!', is token 1 and token 0")


def test_a_copy_of_the_tokenizer_passes_however_it_is_written(repository, engine, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(engine / "tokenizer", copy)
    use_tokenizer(repository, "preprocessing", copy)
    check_repository(repository)
    file = copy / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()), indent=7))
    check_repository(repository)


def test_tokens_that_pad_a_gguf_vocabulary_are_no_difference(repository, tmp_path):
    fast = byte_level()
    fast.add_tokens([f"[PAD{fast.get_vocab_size()}]"])
    use_tokenizer(repository, "preprocessing", save(fast, tmp_path / "other"))
    check_repository(repository)


def test_a_broken_tokenizer_is_refused(repository, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "tokenizer.json").write_text("{}")
    use_tokenizer(repository, "preprocessing", tmp_path / "broken")
    assert_refused(repository, "tokenizer_dir", f"{tmp_path}/broken/tokenizer.json is not a tokenizer")


def test_without_a_tokenizer_in_the_engine_the_models_must_agree(
    make_upstream_repository, engine, other_tokenizer, tmp_path
):
    own = (engine / "tokenizer").rename(tmp_path / "huggingface")
    repository = make_upstream_repository(tokenizer_dir=own)
    check_repository(repository)
    use_tokenizer(repository, "preprocessing", other_tokenizer)
    assert_refused(
        repository,
        f"preprocessing/config.pbtxt: parameter tokenizer_dir (${{tokenizer_dir}}) gives {other_tokenizer}",
        f"another tokenizer than {own}/tokenizer.json of {repository}/postprocessing/config.pbtxt",
    )


@pytest.mark.parametrize("own", [True, False], ids=["beside the engine's", "engine without a tokenizer"])
def test_a_tokenizer_beyond_the_engines_vocabulary_is_refused(make_upstream_repository, engine, tmp_path, own):
    if not own:
        shutil.rmtree(engine / "tokenizer")
    size = 600
    vocabulary = {f"token {index}": index for index in range(size)}
    other = save(Tokenizer(BPE(vocabulary, [])), tmp_path / "other")
    repository = make_upstream_repository(tokenizer_dir=other)
    assert_refused(repository, "preprocessing/config.pbtxt", f"{other}/tokenizer.json has {size}", "vocabulary of 512")


def test_every_engine_of_a_repository_has_its_own_tokenizer(repository, other_tokenizer, tmp_path):
    engine = write_engine(tmp_path / "second")
    shutil.rmtree(engine / "tokenizer")
    shutil.copytree(other_tokenizer, engine / "tokenizer")
    second = generate_repository(engine, tmp_path / "second-repository")
    for model in ("ensemble", "preprocessing", "tensorrt_llm", "postprocessing"):
        file = repository / f"{model}_2" / "config.pbtxt"
        shutil.copytree(second / model, file.parent)
        file.write_text(re.sub('"(preprocessing|tensorrt_llm|postprocessing)"', r'"\1_2"', file.read_text()))
    check_repository(repository)
    use_tokenizer(repository, "preprocessing_2", tmp_path / "engine" / "tokenizer")
    assert_refused(repository, "preprocessing_2/config.pbtxt", f"of the engine {engine}")


@pytest.mark.parametrize(
    "limits, message",
    [
        ({"vocab_size": 600}, "DRAFT/config.json has a vocabulary of 600, but ENGINE/config.json one of 512"),
        ({"max_batch_size": 4}, "DRAFT/config.json was built with max_batch_size 4, but ENGINE/config.json with 8"),
        ({"max_seq_len": 64}, "max_seq_len 64, but ENGINE/config.json with 128; rebuild the draft engine with"),
    ],
)
def test_a_draft_engine_that_does_not_fit_is_refused(engine, tmp_path, limits, message):
    draft_engine = write_engine(tmp_path / "draft", **limits)
    message = message.replace("DRAFT", str(draft_engine)).replace("ENGINE", str(engine))
    variable = "tensorrt_llm/config.pbtxt: parameter draft_engine_dir (${draft_engine_dir}): "
    with pytest.raises(InflightError, match=f"{re.escape(variable)}.*{re.escape(message)}"):
        generate_repository(engine, tmp_path / "repository", draft_engine_dir=draft_engine)


def test_a_draft_engine_must_have_the_tokenizer_of_its_target(engine, tmp_path, other_tokenizer):
    draft_engine = write_engine(tmp_path / "draft")
    repository = generate_repository(engine, tmp_path / "repository", draft_engine_dir=draft_engine)
    shutil.rmtree(draft_engine / "tokenizer")
    check_repository(repository)
    shutil.copytree(other_tokenizer, draft_engine / "tokenizer")
    assert_refused(
        repository,
        "tensorrt_llm/config.pbtxt: parameter draft_engine_dir (${draft_engine_dir})",
        f"the tokenizers of the draft engine {draft_engine} and of {engine} differ",
        "the first that differs, '<extra>'",
    )


def test_a_draft_engine_must_exist(repository):
    file = repository / "tensorrt_llm" / "config.pbtxt"
    edit(file, '("draft_engine_dir"[^"]*")[^"]*"', r'\1/nowhere"')
    assert_refused(repository, file, "parameter draft_engine_dir (${draft_engine_dir}) is /nowhere", "does not exist")


def test_a_file_that_is_no_protobuf_is_refused(repository):
    (repository / "ensemble" / "config.pbtxt").write_text("max_batch_size { }")
    assert_refused(repository, "ensemble/config.pbtxt: line 1")


def test_a_file_that_is_not_utf8_is_refused(repository):
    (repository / "ensemble" / "config.pbtxt").write_bytes(b'name: "\xff"')
    assert_refused(repository, "ensemble/config.pbtxt is not UTF-8 text: invalid start byte at byte 7")


def test_a_broken_engine_configuration_is_refused(repository, engine):
    (engine / "config.json").write_text("{")
    assert_refused(repository, f"{engine}/config.json is not JSON")
    (engine / "config.json").write_text(json.dumps({"pretrained_config": {}}))
    assert_refused(repository, f"{engine}/config.json", "build_config is missing")


def test_a_directory_without_models_is_refused(tmp_path):
    assert_refused(tmp_path, "is not a model repository")


def test_upstream_repositories_pass(make_upstream_repository):
    check_repository(make_upstream_repository())


def test_upstream_repositories_are_checked_as_ours_are(make_upstream_repository):
    repository = make_upstream_repository(decoupled_mode="${decoupled_mode}")
    assert_refused(repository, "tensorrt_llm_bls/config.pbtxt: ${decoupled_mode} is unfilled; give it a value (its")


@pytest.fixture
def hub_cache(tmp_path, engine, monkeypatch):
    """Has the engine's tokenizer as that of the model org/model."""
    snapshot = tmp_path / "hub" / "models--org--model" / "snapshots" / "abc"
    shutil.copytree(engine / "tokenizer", snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return snapshot


def test_a_tokenizer_of_the_hub_is_taken_from_its_local_cache(repository, hub_cache):
    use_tokenizer(repository, "preprocessing", "org/model")
    check_repository(repository)
    assert tokenizer_directory("org/model") == hub_cache
    use_tokenizer(repository, "preprocessing", "org/another")
    assert_refused(
        repository, "parameter tokenizer_dir (${tokenizer_dir}) is org/another, a directory that does not exist"
    )


def test_upstreams_own_models_may_download_theirs(repository, hub_cache):
    use_tokenizer(repository, "preprocessing", "org/another")
    (repository / "preprocessing" / "1" / "model.py").write_text("import json\n")
    check_repository(repository)

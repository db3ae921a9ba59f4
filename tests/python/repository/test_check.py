"""check_repository: what is wrong is named with its file, its variable and the values."""

import json
import re
import shutil

import pytest
from small_tokenizers import byte_level, save

from inflight.errors import InflightError
from inflight.repository.check import check_repository
from inflight.repository.generate import find_templates, generate_repository


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


def test_unfilled_templates_are_refused_with_every_variable_that_triton_would_trip_over(tmp_path):
    shutil.copytree(find_templates(), tmp_path / "repository")
    assert_refused(
        tmp_path / "repository",
        "ensemble/config.pbtxt: ${triton_max_batch_size} is unfilled",
        "tensorrt_llm/config.pbtxt: ${decoupled_mode} is unfilled; give it a value (its default is true)",
    )


def test_unfilled_optional_variables_pass(repository):
    edit(repository / "tensorrt_llm" / "config.pbtxt", 'string_value: "guaranteed_no_evict"',
         'string_value: "${batch_scheduler_policy}"')  # fmt: skip
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
    for model in ("ensemble", "tensorrt_llm_bls", "postprocessing"):
        assert_refused(repository, f"{model}/config.pbtxt: max_batch_size (${{triton_max_batch_size}}) is 0; fill in")


@pytest.mark.parametrize("model", ["ensemble", "tensorrt_llm_bls", "postprocessing"])
def test_the_generating_model_may_have_another_name(engine, tmp_path, model):
    repository = generate_repository(engine, tmp_path / "repository", tensorrt_llm_model_name="llama")
    missing = f"{model}/config.pbtxt: calls the model llama, which is not in the repository"
    assert_refused(repository, missing)
    (repository / "tensorrt_llm").rename(repository / "llama")
    check_repository(repository)


def test_batch_sizes_must_agree(repository):
    edit(repository / "preprocessing" / "config.pbtxt", "max_batch_size: 8", "max_batch_size: 4")
    assert_refused(repository, "ensemble/config.pbtxt", "is 8", "preprocessing/config.pbtxt has 4", "triton_max_batch")


def test_batch_size_beyond_the_engine_is_refused(repository, engine):
    for file in repository.glob("*/config.pbtxt"):
        edit(file, "max_batch_size: 8", "max_batch_size: 9")
    assert_refused(repository, "tensorrt_llm/config.pbtxt", "is 9", f"{engine}/config.json was built for 8")


def test_a_missing_model_is_refused(repository):
    shutil.rmtree(repository / "postprocessing")
    assert_refused(repository, "ensemble/config.pbtxt: calls the model postprocessing, which is not in the repository")


def test_a_tokenizer_beyond_the_vocabulary_is_refused(repository, tmp_path):
    fast = byte_level()
    fast.add_tokens([f"<extra {index}>" for index in range(300)])
    other = save(fast, tmp_path / "other")
    edit(repository / "preprocessing" / "config.pbtxt", '("tokenizer_dir"[^"]*")[^"]*"', rf'\1{other}"')
    size = fast.get_vocab_size()
    assert_refused(repository, "preprocessing/config.pbtxt", f"{other}/tokenizer.json has {size}", "vocabulary of 512")


def test_a_file_that_is_no_protobuf_is_refused(repository):
    (repository / "ensemble" / "config.pbtxt").write_text("max_batch_size { }")
    assert_refused(repository, "ensemble/config.pbtxt: line 1")


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
    assert_refused(repository, "tensorrt_llm_bls/config.pbtxt: ${decoupled_mode} is unfilled; give it a value with")

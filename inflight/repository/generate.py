"""`inflight repo`: the five models of model_templates/, or the one of llmapi_templates/, every value filled."""

import shutil
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from inflight.errors import InflightError
from inflight.output_directory import staged_directory
from inflight.repository.engine_values import repository_values
from inflight.repository.template import fill, find_templates, template_variables
from inflight.text.tokenizer import Tokenizer
from inflight.text.tokenizer_file import FILE_NAME

MODELS = ("ensemble", "preprocessing", "tensorrt_llm", "postprocessing", "tensorrt_llm_bls")
_CONFIG = "config.pbtxt"
_LLMAPI_VALUES = {"decoupled_mode": False}  # as TensorRT-LLM has it


def generate_repository(
    engine: str | Path, out: str | Path, old_repository: str | Path | None = None, **template_overrides: object
) -> Path:
    """Writes the model repository that serves `engine` to the directory `out` and returns it.

    old_repository: one of upstream's, whose values are kept, and whose models beside the five are copied.
    template_overrides: template variables (see model_templates/) that are to differ from that, and from what the
    engine's config.json and the templates' defaults say. `out` appears complete or not at all, and only as a repository
    that the server takes; an existing repository is replaced, any other directory is refused. Raises InflightError.
    """
    values = repository_values(engine) | template_overrides
    kept: dict[str, dict[str, str]] = {}
    others: list[Path] = []
    if old_repository is not None:
        kept, others = _read_old_repository(Path(old_repository), Path(out))
    templates = find_templates()
    tokenizer_dir = Path(str(values["tokenizer_dir"]))
    if (tokenizer_dir / FILE_NAME).is_file():
        Tokenizer(tokenizer_dir)  # a damaged one is refused here, and not in the log of a server
    _check_names(template_overrides, templates, MODELS)
    with staged_directory(Path(out), "a model repository", _is_model_repository) as stage:
        for model in MODELS:
            _make_model(templates / model, stage / model, values | kept.get(model, {}) | template_overrides)
        if old_repository is not None:
            _take_over_types(stage, Path(old_repository))
            _take_over_outputs(stage, Path(old_repository))
        for other in others:
            shutil.copytree(other, stage / other.name)
        _check(stage, Path(out))
    return Path(out)


def generate_llmapi_repository(engine: str | Path, out: str | Path, **template_overrides: object) -> Path:
    """The same with the one model of llmapi_templates/."""
    templates = find_templates("llmapi_templates")
    models = tuple(path.name for path in templates.iterdir())
    _check_names(template_overrides, templates, models)
    values = repository_values(engine) | _LLMAPI_VALUES | template_overrides
    with staged_directory(Path(out), "a model repository", _is_model_repository) as stage:
        for model in models:
            _make_model(templates / model, stage / model, values)
        _check(stage, Path(out))
    return Path(out)


def _make_model(template: Path, model: Path, values: Mapping[str, object]) -> None:
    shutil.copytree(template, model, ignore=shutil.ignore_patterns("__pycache__"))
    _fill_config(model / _CONFIG, values)


def _read_old_repository(old: Path, out: Path) -> tuple[dict[str, dict[str, str]], list[Path]]:
    """The values of the old one's models, and the directories of those that are to be copied."""
    if find_spec("tritonclient") is None:
        raise InflightError("reading another repository needs tritonclient: run `pip install 'tritonclient[grpc]'`")
    from inflight.repository.old_repository import other_models, read_values

    if out.exists() and old.exists() and out.samefile(old):
        raise InflightError(f"--out {out} is the old repository; give another directory")
    return read_values(old, MODELS), other_models(old, MODELS)


def _take_over_types(stage: Path, old: Path) -> None:
    from inflight.repository.old_repository import has_unsigned_integers, with_unsigned_integers

    if not has_unsigned_integers(old):
        return
    for model in MODELS:
        config = stage / model / _CONFIG
        config.write_text(with_unsigned_integers(model, config.read_text(encoding="utf-8")), encoding="utf-8")


def _take_over_outputs(stage: Path, old: Path) -> None:
    from inflight.repository.old_repository import expects_unasked_outputs

    if expects_unasked_outputs(old):
        with open(stage / "tensorrt_llm" / _CONFIG, "a", encoding="utf-8") as config:
            config.write('parameters { key: "fill_unasked_outputs"  value { string_value: "true" } }\n')


def _fill_config(path: Path, values: Mapping[str, object]) -> None:
    filled = fill(path.read_text(encoding="utf-8"), values, leave_parameters=False)
    if filled.unfilled:
        names = ", ".join(variable.name for variable in filled.unfilled)
        raise InflightError(f"{path.parent.name}/{path.name}: {names} must have a value")
    path.write_text(filled.text, encoding="utf-8")


def _check(stage: Path, out: Path) -> None:
    """check_repository, whose messages name the files by where they would have been."""
    if find_spec("tritonclient") is None:  # installed without [server]; the launcher makes the same checks
        return
    from inflight.repository.check import check_repository

    try:
        check_repository(stage)
    except InflightError as error:
        raise InflightError(str(error).replace(str(stage), str(out))) from None


def _check_names(overrides: Mapping[str, object], templates: Path, models: Sequence[str]) -> None:
    configs = [(templates / model / _CONFIG).read_text(encoding="utf-8") for model in models]
    known = {variable.name for config in configs for variable in template_variables(config)}
    if unknown := sorted(overrides.keys() - known):
        raise InflightError(f"no such template variable: {', '.join(unknown)}; there are {', '.join(sorted(known))}")


def _is_model_repository(out: Path) -> bool:
    """An earlier result: nothing but models of ours."""
    return all(entry.name in MODELS and (entry / _CONFIG).is_file() for entry in out.iterdir())

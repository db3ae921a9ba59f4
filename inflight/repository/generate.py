"""`inflight repo`: the five models of model_templates/, every value filled."""

import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import inflight
from inflight.errors import InflightError
from inflight.output_directory import staged_directory
from inflight.repository.engine_values import repository_values
from inflight.repository.template import fill, template_variables
from inflight.text.tokenizer import Tokenizer
from inflight.text.tokenizer_file import FILE_NAME

MODELS = ("ensemble", "preprocessing", "tensorrt_llm", "postprocessing", "tensorrt_llm_bls")
_CONFIG = "config.pbtxt"


def generate_repository(engine: str | Path, out: str | Path, **template_overrides: object) -> Path:
    """Writes the model repository that serves `engine` to the directory `out` and returns it.

    template_overrides: template variables (see model_templates/) that are to differ from what the engine's
    config.json and the templates' defaults say. `out` appears complete or not at all, and only as a repository that
    the server takes; an existing repository is replaced, any other directory is refused. Raises InflightError.
    """
    values = repository_values(engine) | template_overrides
    templates = find_templates()
    tokenizer_dir = Path(str(values["tokenizer_dir"]))
    if (tokenizer_dir / FILE_NAME).is_file():
        Tokenizer(tokenizer_dir)  # a damaged one is refused here, and not in the log of a server
    _check_names(template_overrides, templates)
    with staged_directory(Path(out), "a model repository", _is_model_repository) as stage:
        for model in MODELS:
            shutil.copytree(templates / model, stage / model, ignore=shutil.ignore_patterns("__pycache__"))
            _fill_config(stage / model / _CONFIG, values)
        _check(stage, Path(out))
    return Path(out)


def find_templates() -> Path:
    """The directory model_templates: of the installed package, or of the source tree around it."""
    for package in map(Path, inflight.__path__):
        for directory in (package / "model_templates", package.parent / "model_templates"):
            if (directory / MODELS[0] / _CONFIG).is_file():
                return directory
    raise InflightError("model_templates is not in the installed inflight package: install it with `pip install .`")


def _fill_config(path: Path, values: Mapping[str, object]) -> None:
    filled = fill(path.read_text(encoding="utf-8"), values, resolve_defaults=True)
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


def _check_names(overrides: Mapping[str, object], templates: Path) -> None:
    configs = [(templates / model / _CONFIG).read_text(encoding="utf-8") for model in MODELS]
    known = {variable.name for config in configs for variable in template_variables(config)}
    if unknown := sorted(overrides.keys() - known):
        raise InflightError(f"no such template variable: {', '.join(unknown)}; there are {', '.join(sorted(known))}")


def _is_model_repository(out: Path) -> bool:
    """An earlier result: nothing but models of ours."""
    return all(entry.name in MODELS and (entry / _CONFIG).is_file() for entry in out.iterdir())

"""What can be wrong with a model repository, found before tritonserver starts: half-filled templates, paths that
do not exist, and files that disagree. Upstream's repositories pass as ours do."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from inflight.engine.draft_engine_check import draft_engine_misfits
from inflight.engine.tokenizer_check import foreign_tokenizers
from inflight.errors import InflightError
from inflight.repository.engine_values import engine_limit
from inflight.repository.hub_cache import is_hub_id, tokenizer_directory
from inflight.repository.parameters import is_unfilled
from inflight.repository.python_code import is_ours, missing_imports
from inflight.repository.template import template_variables
from inflight.repository.unserved_values import unserved_values

_GENERATION_BACKENDS = ("inflight", "tensorrtllm")
# Parameters without which a model cannot start, and the template variable that fills each.
_ENGINE_VARIABLE = "engine_dir"
_TOKENIZER_PATH = ("tokenizer_dir", "tokenizer_dir")
_DRAFT_ENGINE = "draft_engine_dir"  # optional, and its own variable


@dataclass(frozen=True)
class _Model:
    file: Path
    config: ModelConfig

    @property
    def name(self) -> str:
        return self.file.parent.name

    @property
    def generates(self) -> bool:
        return self.config.backend in _GENERATION_BACKENDS

    @property
    def is_ensemble(self) -> bool:
        return self.config.platform == "ensemble"

    @property
    def is_ours(self) -> bool:
        """Whether it is made of model_templates, where upstream's own models have the same name."""
        return self.is_ensemble or is_ours(self.file.parent)

    def parameter(self, name: str) -> str:
        """The value of a parameter, "" where it is unfilled."""
        value = self.config.parameters[name].string_value if name in self.config.parameters else ""
        return "" if is_unfilled(value) else value

    @property
    def engine_parameter(self) -> str:
        """The parameter that gives the engine, as the backend chooses it (backend/triton/model/backend_config.cc)."""
        given = [name for name in ("gpt_model_path", "engine_dir") if name in self.config.parameters]
        return next((name for name in given if self.config.parameters[name].string_value), "gpt_model_path")

    @property
    def engine(self) -> str:
        return self.parameter(self.engine_parameter)


def check_repository(path: str | Path) -> None:
    """Raises InflightError that names, for everything that is wrong, the file, the variable and the values."""
    files = sorted(Path(path).glob("*/config.pbtxt"))
    if not files:
        raise InflightError(f"{path} is not a model repository: no directory in it has a config.pbtxt")
    texts = {file: _read(file) for file in files}
    _raise(problem for item in texts.items() for problem in _unfilled(*item))
    models = {file.parent.name: _Model(file, _parse(file, text)) for file, text in texts.items()}
    _raise(problem for model in models.values() for problem in _bad_paths(model))
    _raise(problem for model in models.values() if model.is_ours for problem in _unserved_values(model))
    _raise(problem for model in models.values() for problem in _missing_models(model, models))
    _raise(
        problem
        for model in models.values()
        if model.config.backend == "python"
        for problem in missing_imports(model.file.parent)
    )
    _raise(problem for group in _groups(models) for problem in _bad_batch_sizes(group))
    _raise(problem for model in models.values() if model.generates for problem in _beyond_engine(model))
    _raise(problem for model in models.values() if model.generates for problem in _unfit_draft_engine(model))
    _raise(_foreign_tokenizers(models))


def _raise(problems: Iterable[str]) -> None:
    if found := list(problems):
        raise InflightError("\n".join(found))


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InflightError(f"{file} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise InflightError(f"cannot read {file}: {error.strerror}") from error


def _unfilled(file: Path, text: str) -> Iterator[str]:
    """Variables that Triton itself would have to read."""
    for variable in template_variables(text):
        if variable.read_by_triton:
            value = "a value" if variable.default is None else f"a value (its default is {variable.default})"
            yield f"{file}: ${{{variable.name}}} is unfilled; give it {value} with tools/fill_template.py"


def _parse(file: Path, text: str) -> ModelConfig:
    try:
        return text_format.Parse(text, ModelConfig(), allow_unknown_field=True)
    except text_format.ParseError as error:
        raise InflightError(f"{file}: line {error} (not a valid model configuration)") from error


def _bad_paths(model: _Model) -> Iterator[str]:
    required = []
    if model.generates:
        required.append((model.engine_parameter, _ENGINE_VARIABLE))
        if model.parameter(_DRAFT_ENGINE):
            required.append((_DRAFT_ENGINE, _DRAFT_ENGINE))
    if _TOKENIZER_PATH[0] in model.config.parameters and (not model.generates or model.parameter(_TOKENIZER_PATH[0])):
        required.append(_TOKENIZER_PATH)
    for parameter, variable in required:
        value = model.parameter(parameter)
        if not value:
            yield f"{model.file}: parameter {parameter} (${{{variable}}}) is unfilled; it is required"
        elif not _is_there(parameter, value, model):
            yield f"{model.file}: parameter {parameter} (${{{variable}}}) is {value}, a directory that does not exist"


def _is_there(parameter: str, value: str, model: _Model) -> bool:
    """A tokenizer may be one of Hugging Face's hub, which upstream's own models download, and engines have theirs."""
    if parameter != _TOKENIZER_PATH[0]:
        return Path(value).is_dir()
    return tokenizer_directory(value).is_dir() or is_hub_id(value) and (model.generates or not model.is_ours)


def _missing_models(model: _Model, models: Mapping[str, _Model]) -> Iterator[str]:
    for name in _called_models(model):
        if name not in models:
            yield f"{model.file}: calls the model {name}, which is not in the repository {model.file.parent.parent}"


def _groups(models: Mapping[str, _Model]) -> list[list[_Model]]:
    """The models that call each other, directly or through others."""
    groups: list[set[str]] = []
    for name, model in models.items():
        if called := _called_models(model):
            joined = [group for group in groups if not group.isdisjoint({name, *called})]
            groups = [group for group in groups if group not in joined] + [{name, *called}.union(*joined)]
    return [[models[name] for name in sorted(group)] for group in groups]


def _bad_batch_sizes(group: list[_Model]) -> Iterator[str]:
    """Pre- and postprocessing need batches, and Triton needs an ensemble to take no larger ones than its steps."""
    if without := [str(model.file) for model in group if model.config.max_batch_size == 0]:
        yield f"{' and '.join(without)}: max_batch_size (${{triton_max_batch_size}}) is 0; fill in at least 1"
        return
    models = {model.name: model for model in group}
    for ensemble in filter(lambda model: model.is_ensemble, group):
        size = ensemble.config.max_batch_size
        small = {name: models[name].config.max_batch_size for name in _called_models(ensemble)}
        for name, step_size in small.items():
            if step_size < size:
                yield (
                    f"{ensemble.file}: max_batch_size (${{triton_max_batch_size}}) is {size}, but {step_size} in "
                    f"{models[name].file}, which it calls; fill in at most that"
                )


def _called_models(model: _Model) -> list[str]:
    steps = [step.model_name for step in model.config.ensemble_scheduling.step]
    if "tensorrt_llm_model_name" in model.config.parameters and not model.is_ensemble:  # upstream's, in Python
        steps.append(model.parameter("tensorrt_llm_model_name") or "tensorrt_llm")
        if model.name == "tensorrt_llm_bls":
            steps += ["preprocessing", "postprocessing"]
    return steps


def _beyond_engine(model: _Model) -> Iterator[str]:
    """More beams than the engine's. Of a larger batch than the engine's, the rest waits."""
    beam_width = model.parameter("max_beam_width")
    if beam_width.isdecimal() and int(beam_width) > (limit := engine_limit(model.engine, "max_beam_width")):
        yield (  # the backend refuses what is no number
            f"{model.file}: max_beam_width (${{max_beam_width}}) is {beam_width}, but the engine "
            f"{model.engine}/config.json was built for {limit}; fill in at most that, or rebuild with a larger "
            "--max-beam-width"
        )


def _unserved_values(model: _Model) -> Iterator[str]:
    values = {name: model.parameter(name) for name in model.config.parameters}
    for problem in unserved_values(model.name, values):
        yield f"{model.file}: {problem}"
    named, steps = values.get("tensorrt_llm_model_name"), _called_models(model)
    if model.is_ensemble and named and named not in steps:
        yield (
            f"{model.file}: parameter tensorrt_llm_model_name (${{tensorrt_llm_model_name}}) is {named}, but its steps"
            f" call {', '.join(dict.fromkeys(steps))}: write the name into the steps"
        )


def _unfit_draft_engine(model: _Model) -> Iterator[str]:
    if draft_engine := model.parameter(_DRAFT_ENGINE):
        for misfit in draft_engine_misfits(model.engine, draft_engine):
            yield f"{model.file}: parameter {_DRAFT_ENGINE} (${{{_DRAFT_ENGINE}}}): {misfit}"


def _foreign_tokenizers(models: Mapping[str, _Model]) -> Iterator[str]:
    tokenizer_dirs = {
        name: str(tokenizer_directory(directory))
        for name, model in models.items()
        if (directory := model.parameter(_TOKENIZER_PATH[0]))
    }
    for engine in sorted({model.engine for model in models.values() if model.generates}):
        users = {
            models[name].file: directory
            for name, directory in tokenizer_dirs.items()
            if engine in _engines_used_with(name, models)
        }
        yield from foreign_tokenizers(engine, users)


def _engines_used_with(name: str, models: Mapping[str, _Model]) -> set[str]:
    """The engines whose ids a model reads or writes: those in a call with it, or all where nothing calls it."""
    calls = [{caller, *_called_models(model)} for caller, model in models.items()]
    partners = set().union(*(call for call in calls if name in call))
    engines = {models[partner].engine for partner in partners if models[partner].generates}
    return engines or {model.engine for model in models.values() if model.generates}

"""What can be wrong with a model repository, found before tritonserver starts: half-filled templates, paths that
do not exist, and files that disagree. Upstream's repositories pass as ours do."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from inflight.errors import InflightError
from inflight.repository.draft_check import draft_misfits
from inflight.repository.engine_values import engine_limit
from inflight.repository.parameters import is_unfilled
from inflight.repository.template import template_variables
from inflight.repository.tokenizer_check import foreign_tokenizers

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
    def generates(self) -> bool:
        return self.config.backend in _GENERATION_BACKENDS

    def parameter(self, name: str) -> str:
        """The value of a parameter, "" where it is unfilled."""
        value = self.config.parameters[name].string_value if name in self.config.parameters else ""
        return "" if is_unfilled(value) else value

    @property
    def engine_parameter(self) -> str:
        """The parameter that gives the engine, as the backend chooses it (backend/triton/model_config.cc)."""
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
    _raise(problem for model in models.values() for problem in _missing_models(model, models))
    _raise(problem for group in _groups(models) for problem in _bad_batch_sizes(group))
    _raise(problem for model in models.values() if model.generates for problem in _beyond_engine(model))
    _raise(problem for model in models.values() if model.generates for problem in _unfit_drafts(model))
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
    if _TOKENIZER_PATH[0] in model.config.parameters:
        required.append(_TOKENIZER_PATH)
    for parameter, variable in required:
        value = model.parameter(parameter)
        if not value:
            yield f"{model.file}: parameter {parameter} (${{{variable}}}) is unfilled; it is required"
        elif not Path(value).is_dir():
            yield f"{model.file}: parameter {parameter} (${{{variable}}}) is {value}, a directory that does not exist"


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
    """Models that call each other must take the same batches, which pre- and postprocessing need."""
    files: dict[int, list[str]] = {}
    for model in group:
        files.setdefault(model.config.max_batch_size, []).append(str(model.file))
    if len(files) > 1:
        sizes = ", but ".join(f"{size} in {' and '.join(names)}" for size, names in files.items())
        yield f"max_batch_size (${{triton_max_batch_size}}) is {sizes}; fill all with the same value, at least 1"
    elif 0 in files:
        yield f"{' and '.join(files[0])}: max_batch_size (${{triton_max_batch_size}}) is 0; fill in at least 1"


def _called_models(model: _Model) -> list[str]:
    steps = [step.model_name for step in model.config.ensemble_scheduling.step]
    if "tensorrt_llm_model_name" in model.config.parameters:
        steps.append(model.parameter("tensorrt_llm_model_name") or "tensorrt_llm")
        if model.file.parent.name == "tensorrt_llm_bls":  # upstream's, in Python
            steps += ["preprocessing", "postprocessing"]
    return steps


def _beyond_engine(model: _Model) -> Iterator[str]:
    beam_width = model.parameter("max_beam_width")
    wanted = [("max_batch_size", "triton_max_batch_size", model.config.max_batch_size)]
    if beam_width.isdecimal():  # the backend refuses what is not
        wanted.append(("max_beam_width", "max_beam_width", int(beam_width)))
    for name, variable, value in wanted:
        limit = engine_limit(model.engine, name)
        if value > limit:
            yield (
                f"{model.file}: {name} (${{{variable}}}) is {value}, but the engine {model.engine}/config.json was "
                f"built for {limit}; fill in at most that, or rebuild with a larger --{name.replace('_', '-')}"
            )


def _unfit_drafts(model: _Model) -> Iterator[str]:
    if draft := model.parameter(_DRAFT_ENGINE):
        for misfit in draft_misfits(model.engine, draft):
            yield f"{model.file}: parameter {_DRAFT_ENGINE} (${{{_DRAFT_ENGINE}}}): {misfit}"


def _foreign_tokenizers(models: Mapping[str, _Model]) -> Iterator[str]:
    tokenizer_dirs = {
        name: directory for name, model in models.items() if (directory := model.parameter(_TOKENIZER_PATH[0]))
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

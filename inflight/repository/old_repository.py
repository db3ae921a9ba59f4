"""What a repository of upstream's, filled for TensorRT-LLM, says that ours should say, too."""

import re
from collections.abc import Mapping
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig

from inflight.errors import InflightError
from inflight.repository.parameters import is_unfilled
from inflight.repository.template import fill, find_templates

# Given by the engine and by what serves it.
_OF_THE_ENGINE = ("engine_dir", "tokenizer_dir", "triton_backend")
_PARAMETER = re.compile(r'parameters { key: "(?P<key>\w+)"  value { string_value: "\${(?P<variable>\w+)}" } }')
_LOGITS = ("context_logits", "generation_logits")

# Integers without a sign in 0.5 and 0.6; Triton takes no others from a client than the model's configuration has.
_UNSIGNED = {
    "ensemble": "max_tokens end_id pad_id top_k min_length beam_width prompt_vocab_size",
    "tensorrt_llm_bls": "max_tokens end_id pad_id top_k min_length beam_width prompt_vocab_size",
    "preprocessing": "REQUEST_OUTPUT_LEN END_ID PAD_ID OUT_END_ID OUT_PAD_ID",
    "tensorrt_llm": "request_output_len end_id pad_id runtime_top_k min_length beam_width prompt_vocab_size",
}

Values = dict[str, str]


def read_values(repository: Path, models: tuple[str, ...]) -> dict[str, Values]:
    """The template variables of each of `models` that is in the old repository. Raises InflightError."""
    values = {
        model: _values(model, _parse(file))
        for model in models
        if (file := repository / model / "config.pbtxt").is_file()
    }
    if "tensorrt_llm" not in values:
        raise InflightError(f"{repository} is no model repository of upstream's: it has no tensorrt_llm/config.pbtxt")
    if skip := values.get("postprocessing", {}).get("skip_special_tokens"):
        values["tensorrt_llm"]["skip_special_tokens"] = skip  # which looks for stop words in the text
    return values


def describe(repository: Path, models: tuple[str, ...]) -> list[str]:
    """What becomes of an old repository's values and models, a line each. Raises InflightError."""
    lines = []
    for model, values in read_values(repository, models).items():
        kept = ", ".join(f"{name}={value}" for name, value in sorted(values.items()))
        lines.append(f"{model}: kept {kept or 'nothing'}")
        if lost := _without_variable(model, _parse(repository / model / "config.pbtxt")):
            lines.append(f"{model}: not known here, left out: {', '.join(lost)}")
    if others := other_models(repository, models):
        lines.append(f"copied: {', '.join(other.name for other in others)}")
    return lines


def has_unsigned_integers(repository: Path) -> bool:
    """Whether its clients send integers without a sign. Raises InflightError."""
    inputs = _parse(repository / "tensorrt_llm" / "config.pbtxt").input
    return any(tensor.name == "request_output_len" and tensor.data_type == DataType.TYPE_UINT32 for tensor in inputs)


def with_unsigned_integers(model: str, config: str) -> str:
    """The configuration of one of our models with the types that such clients send."""
    names = "|".join(_UNSIGNED.get(model, "").split())
    return re.sub(rf'(name: "(?:{names})"  data_type: )TYPE_INT32', r"\1TYPE_UINT32", config) if names else config


def expects_unasked_outputs(repository: Path) -> bool:
    """Whether its clients may read log-probs and logits that they have not asked for, as those up to 0.13 do. Raises
    InflightError."""
    outputs = _parse(repository / "tensorrt_llm" / "config.pbtxt").output
    return all(tensor.name != "sequence_index" for tensor in outputs)


def other_models(repository: Path, models: tuple[str, ...]) -> list[Path]:
    """The models of a repository beside those."""
    return sorted(file.parent for file in repository.glob("*/config.pbtxt") if file.parent.name not in models)


def _parse(file: Path) -> ModelConfig:
    text = fill(file.read_text(encoding="utf-8"), {"triton_max_batch_size": 0}).text
    try:
        return text_format.Parse(text, ModelConfig(), allow_unknown_field=True)
    except text_format.ParseError as error:
        raise InflightError(f"{file}: line {error} (not a valid model configuration)") from error


def _values(model: str, config: ModelConfig) -> Values:
    variables = _variables_of_parameters(model)
    values = {
        variables[name]: parameter.string_value
        for name, parameter in config.parameters.items()
        if name in variables and not is_unfilled(parameter.string_value)
    }
    if config.max_batch_size > 0:
        values["triton_max_batch_size"] = str(config.max_batch_size)
    for output in config.output:
        if output.name in _LOGITS:
            values["logits_datatype"] = DataType.Name(output.data_type)
    if model == "tensorrt_llm":
        values["decoupled_mode"] = str(config.model_transaction_policy.decoupled).lower()
        if size := config.dynamic_batching.default_queue_policy.max_queue_size:
            values["max_queue_size"] = str(size)
    return {name: value for name, value in values.items() if name not in _OF_THE_ENGINE}


def _without_variable(model: str, config: ModelConfig) -> list[str]:
    """Filled parameters that our template has not."""
    known = _variables_of_parameters(model)
    return sorted(
        name
        for name, parameter in config.parameters.items()
        if name not in known and not is_unfilled(parameter.string_value)
    )


def _variables_of_parameters(model: str) -> Mapping[str, str]:
    """Which template variable fills a parameter, as our own template has it."""
    text = (find_templates() / model / "config.pbtxt").read_text(encoding="utf-8")
    return {match["key"]: match["variable"] for match in _PARAMETER.finditer(text)}

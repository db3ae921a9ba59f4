"""Text to token ids. What it does is in inflight.text.preprocessor; this is its Triton side."""

import json

import triton_python_backend_utils as pb_utils

from inflight.errors import InflightError
from inflight.repository.engine_values import engine_end_id, engine_vocab_size
from inflight.repository.parameters import (
    flag_parameter,
    prompt_limits_parameters,
    require_batches,
    text_parameter,
    tokenizer_parameter,
    word_limits_parameters,
)
from inflight.text.preprocessor import Preprocessor


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        require_batches(config)
        engine_dir = text_parameter(config, "gpt_model_path", default="")
        self._types = {
            output["name"]: pb_utils.triton_string_to_numpy(output["data_type"]) for output in config["output"]
        }
        self._preprocess = Preprocessor(
            tokenizer_parameter(config),
            add_special_tokens=flag_parameter(config, "add_special_tokens", default=True),
            vocab_size=engine_vocab_size(engine_dir) if engine_dir else None,
            end_id=engine_end_id(engine_dir) if engine_dir else None,
            prompt_limits=prompt_limits_parameters(config, engine_dir),
            word_limits=word_limits_parameters(config),
        )

    def execute(self, requests):
        return [self._respond(request) for request in requests]

    def _respond(self, request):
        inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        try:
            outputs = self._preprocess(inputs, json.loads(request.parameters()))
        except InflightError as error:
            return _error(str(error), pb_utils.TritonError.INVALID_ARG)
        except Exception as error:  # whatever is wrong with one request must not fail the others of its batch
            return _error(f"preprocessing: {error!r}", pb_utils.TritonError.INTERNAL)
        tensors = [pb_utils.Tensor(name, self._typed(name, value)) for name, value in outputs.items()]
        return pb_utils.InferenceResponse(output_tensors=tensors)

    def _typed(self, name, value):
        """In the type that the model's configuration has: integers had no sign in TensorRT-LLM's 0.5 and 0.6."""
        return value.astype(self._types.get(name, value.dtype), copy=False)


def _error(message, code):
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))

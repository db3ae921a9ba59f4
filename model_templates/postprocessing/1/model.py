"""Generated ids to text. What it does is in inflight.text.postprocessor; this is its Triton side.

Triton tells the steps of an ensemble that the client has cancelled, or has gone, only when they begin. The step that
begins with every token of a stream is this one, so it is this one that ends such a generation.
"""

import json

import numpy as np
import triton_python_backend_utils as pb_utils

from inflight.repository.parameters import flag_parameter, require_batches, text_parameter, tokenizer_parameter
from inflight.text.postprocessor import Postprocessor


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        require_batches(config)
        tokenizer = tokenizer_parameter(config)
        skip_special_tokens = flag_parameter(config, "skip_special_tokens", default=True)
        self._postprocess = Postprocessor(tokenizer.detokenizer(skip_special_tokens))
        self._llm = text_parameter(config, "tensorrt_llm_model_name", default="tensorrt_llm")

    def execute(self, requests):
        return [self._respond(request) for request in requests]

    def _respond(self, request):
        inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        try:
            if "GENERATION_ID" in inputs and request.is_cancelled():
                self._stop(inputs["GENERATION_ID"].item())
            texts = self._postprocess(
                inputs["TOKENS_BATCH"],
                inputs["SEQUENCE_LENGTH"],
                inputs.get("PRECEDING_IDS"),
                inputs.get("SEQUENCE_FINISHED"),
            )
        except Exception as error:  # whatever is wrong with one request must not fail the others of its batch
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"postprocessing: {error!r}"))
        return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("OUTPUT", texts)])

    def _stop(self, generation_id):
        one = np.ones((1, 1), np.int32)
        inputs = {"input_ids": one, "input_lengths": one, "request_output_len": one, "stop": one.astype(bool)}
        request = pb_utils.InferenceRequest(
            model_name=self._llm,
            request_id=f"generation-{generation_id}",
            inputs=[pb_utils.Tensor(name, value) for name, value in inputs.items()],
            requested_output_names=["sequence_length"],
        )
        for response in request.exec(decoupled=True):
            if response.has_error():
                raise RuntimeError(f"cannot end generation {generation_id}: {response.error().message()}")

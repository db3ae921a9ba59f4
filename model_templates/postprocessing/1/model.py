"""Generated ids to text. What it does is in inflight.text.postprocessor; this is its Triton side."""

import json

import triton_python_backend_utils as pb_utils

from inflight.repository.parameters import flag_parameter, require_batches, tokenizer_parameter
from inflight.text.postprocessor import Postprocessor

# Inputs that come out again as OUT_….
_HANDED_ON = ("CUM_LOG_PROBS", "OUTPUT_LOG_PROBS", "CONTEXT_LOGITS", "GENERATION_LOGITS", "BATCH_INDEX")


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        require_batches(config)
        tokenizer = tokenizer_parameter(config)
        skip_special_tokens = flag_parameter(config, "skip_special_tokens", default=True)
        self._postprocess = Postprocessor(tokenizer.detokenizer(skip_special_tokens))

    def execute(self, requests):
        return [self._respond(request) for request in requests]

    def _respond(self, request):
        inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        try:
            texts = self._postprocess(
                inputs["TOKENS_BATCH"],
                inputs.get("SEQUENCE_LENGTH"),
                inputs.get("PRECEDING_IDS"),
                inputs.get("SEQUENCE_FINISHED"),
                inputs.get("NUM_CUT_BYTES"),
            )
        except Exception as error:  # whatever is wrong with one request must not fail the others of its batch
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"postprocessing: {error!r}"))
        handed_on = [pb_utils.Tensor(f"OUT_{name}", inputs[name]) for name in _HANDED_ON if name in inputs]
        return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("OUTPUT", texts), *handed_on])

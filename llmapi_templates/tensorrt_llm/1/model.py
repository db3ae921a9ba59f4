"""The one model of TensorRT-LLM's llmapi repository. What it does is in inflight.llmapi; this is its Triton side."""

import asyncio
import json
import threading

import triton_python_backend_utils as pb_utils

from inflight import LLM
from inflight.errors import InflightError
from inflight.llmapi import Request, refuse_unknown_fields
from inflight.repository.parameters import text_parameter

_LAST = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self._inputs = [tensor["name"] for tensor in config["input"]]
        self._decoupled = pb_utils.using_decoupled_model_transaction_policy(config)
        max_queue_size = text_parameter(config, "max_queue_size", default="4096")
        self._llm = LLM(text_parameter(config, "engine_dir"), progress=False, max_queue_size=int(max_queue_size))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def execute(self, requests):
        """Returns at once: each request is a task, and answers when it has something to say."""
        for request in requests:
            inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            fields = json.loads(request.parameters())
            asyncio.run_coroutine_threadsafe(self._serve(inputs, fields, request.get_response_sender()), self._loop)

    def finalize(self):
        self._llm.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _serve(self, inputs, fields, sender):
        try:
            refuse_unknown_fields(fields, self._inputs)
            request = Request(inputs, self._decoupled)
            async for outputs in request.responses(self._llm, sender.is_cancelled):
                response = pb_utils.InferenceResponse([pb_utils.Tensor(*item) for item in outputs.items()])
                sender.send(response, flags=0 if self._decoupled else _LAST)  # otherwise there is only one
            if self._decoupled:
                sender.send(flags=_LAST)
        except InflightError as error:
            _send_error(sender, str(error), pb_utils.TritonError.INVALID_ARG)
        except Exception as error:  # whatever is wrong with one request must not fail the others
            _send_error(sender, repr(error), pb_utils.TritonError.INTERNAL)


def _send_error(sender, message, code):
    sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code)), flags=_LAST)

"""A stand-in for the C++ backend: generates the prompt once more, token by token, to the wire contract."""

from collections import deque

import numpy as np
import triton_python_backend_utils as pb_utils

PRECEDING = 16


class TritonPythonModel:
    def initialize(self, args):
        self._announced = {}  # generation id → the responses that are left to fetch

    def execute(self, requests):
        for request in requests:
            inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            sender = request.get_response_sender()
            for response in self._answers(inputs, request.requested_output_names()):
                sender.send(response)
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def _answers(self, inputs, outputs):
        if "generation_id" in inputs:
            return [self._announced[inputs["generation_id"].item()].popleft()]
        answers = list(responses(inputs))
        if list(outputs) != ["generation_id"]:
            return answers
        generation_id = len(self._announced)
        self._announced[generation_id] = deque(answers)
        return [announcement(generation_id) for _ in answers]


def announcement(generation_id):
    return pb_utils.InferenceResponse([pb_utils.Tensor("generation_id", np.array([[generation_id]], np.uint64))])


def responses(inputs):
    length = inputs["input_lengths"].item()
    tokens = inputs["input_ids"][0, :length].tolist()[: inputs["request_output_len"].item()]
    streaming = "streaming" in inputs and inputs["streaming"].item()
    sizes = [1, 2, 1, 3] * len(tokens) if streaming else [len(tokens)]
    done = 0
    for size in sizes:
        new = tokens[done : done + size]
        is_last = done + size >= len(tokens) + streaming  # a stream's last response may hold no tokens
        yield response(new, tokens[:done] if streaming else [], is_last)
        done += len(new)
        if is_last:
            return


def response(new, before, is_last):
    preceding = ([-1] * PRECEDING + before)[-PRECEDING:]
    return pb_utils.InferenceResponse(
        [
            pb_utils.Tensor("output_ids", np.array(new, np.int32).reshape(1, 1, -1)),
            pb_utils.Tensor("sequence_length", np.array([[len(new)]], np.int32)),
            pb_utils.Tensor("preceding_ids", np.array([preceding], np.int32)),
            pb_utils.Tensor("sequence_finished", np.array([[is_last]], bool)),
            pb_utils.Tensor("num_cut_bytes", np.array([[0]], np.int32)),
            pb_utils.Tensor("sequence_index", np.array([[0]], np.int32)),
        ]
    )

"""Streams over gRPC with tritonclient."""

import queue
from collections.abc import Iterator

import numpy as np
import tritonclient.grpc as triton

TIMEOUT = 60.0  # seconds without a response
_DATATYPES = {"O": "BYTES", "i": "INT32", "f": "FP32", "b": "BOOL", "u": "UINT64"}


class Stream:
    """One request on a gRPC stream of its own. A context manager; leaving it cancels what still runs.

    request: input name → value; a list is a row of a tensor, anything else a tensor of one element.
    """

    def __init__(
        self,
        port: int,
        request: dict,
        model: str = "ensemble",
        request_id: str = "",
        streaming: bool = True,
        parameters: dict | None = None,
    ):
        flag = "streaming" if model == "tensorrt_llm" else "stream"
        self._responses: queue.SimpleQueue = queue.SimpleQueue()
        self._client = triton.InferenceServerClient(f"localhost:{port}")
        self._client.start_stream(lambda result, error: self._responses.put((result, error)))
        self._client.async_stream_infer(
            model,
            tensors({**request, flag: streaming}),
            request_id=request_id,
            enable_empty_final_response=True,
            parameters=parameters,
        )

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *exception) -> None:
        self.cancel()
        self._client.close()

    def cancel(self) -> None:
        self._client.stop_stream(cancel_requests=True)

    def disconnect(self) -> None:
        """Goes away without a word."""
        self._client._channel.close()

    def outputs(self, name: str) -> Iterator[np.ndarray]:
        """This output of each response until the last."""
        is_final = False
        while not is_final:
            result, error = self._responses.get(timeout=TIMEOUT)
            if error is not None:
                raise error
            is_final = result.get_response().parameters["triton_final_response"].bool_param
            output = result.as_numpy(name)
            if output is not None:
                yield output

    def texts(self) -> Iterator[str]:
        for output in self.outputs("text_output"):
            yield b"".join(output.reshape(-1)).decode()


def streamed_text(port: int, request: dict, model: str = "ensemble") -> str:
    with Stream(port, request, model) as stream:
        return "".join(stream.texts())


def tensors(request: dict) -> list[triton.InferInput]:
    """Input tensors [1, elements] of the types that the wire contract gives to Python's."""
    inputs = []
    for name, value in request.items():
        array = np.array([[_numpy_value(element) for element in (value if isinstance(value, list) else [value])]])
        if array.dtype.kind == "S":
            array = array.astype(object)  # bytes of any length, as tritonclient wants them
        if name == "random_seed":
            array = array.astype(np.uint64)
        tensor = triton.InferInput(name, array.shape, _DATATYPES[array.dtype.kind])
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    return inputs


def _numpy_value(value):
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bool):
        return np.bool_(value)
    return np.int32(value) if isinstance(value, int) else np.float32(value)

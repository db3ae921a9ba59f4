"""Requests of token ids for the model tensorrt_llm, as tritonclient takes them."""

import queue

import numpy as np
import tritonclient.grpc as grpcclient

TYPES = {
    "int32": "INT32",
    "uint32": "UINT32",
    "float32": "FP32",
    "bool": "BOOL",
    "uint64": "UINT64",
    "int64": "INT64",
    "float16": "FP16",
    "object": "BYTES",
}


def tensors(client, arrays: dict[str, np.ndarray]) -> list:
    """Inputs for `client`, the module tritonclient.http or tritonclient.grpc."""
    inputs = []
    for name, array in arrays.items():
        tensor = client.InferInput(name, list(array.shape), TYPES[array.dtype.name])
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    return inputs


def strings(*values: str) -> np.ndarray:
    """[1, n]"""
    return np.array([[value.encode() for value in values]], np.object_)


def request(input_ids=(5, 6, 7), max_tokens: int = 8, **others) -> dict[str, np.ndarray]:
    """The tensors of a request of one sequence; others: name → array, or a Python scalar as [1, 1]."""
    arrays = {
        "input_ids": np.array([input_ids], np.int32).reshape(1, -1),
        "input_lengths": np.array([[len(input_ids)]], np.int32),
        "request_output_len": np.array([[max_tokens]], np.int32),
    }
    types = {bool: np.bool_, int: np.int32, float: np.float32}
    for name, value in others.items():
        arrays[name] = value if isinstance(value, np.ndarray) else np.array([[value]], types[type(value)])
    return arrays


def stream(
    client: grpcclient.InferenceServerClient, arrays: dict[str, np.ndarray], model: str = "tensorrt_llm"
) -> list[grpcclient.InferResult]:
    """All responses to one request on a gRPC stream; raises its error."""
    responses = queue.SimpleQueue()
    client.start_stream(lambda result, error: responses.put((result, error)))
    try:
        client.async_stream_infer(model, tensors(grpcclient, arrays), enable_empty_final_response=True)
        results = []
        while True:
            result, error = responses.get(timeout=60)
            if error is not None:
                raise error
            results.append(result)
            if result.get_response().parameters["triton_final_response"].bool_param:
                return results
    finally:
        client.stop_stream()

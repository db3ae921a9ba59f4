"""Triton's ModelStreamInfer over one gRPC channel, as tritonclient's generated stubs speak it."""

from collections.abc import AsyncIterator
from typing import Any

from inflight.errors import InflightError

try:
    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc
except ImportError as error:
    raise InflightError(f"{error}; --protocol grpc needs tritonclient: pip install 'tritonclient[grpc]'") from error


class GrpcClient:
    """One client with a channel of its own; one request at a time. Failures are InflightErrors."""

    def __init__(self, url: str, model: str, stream: bool):
        options = [("grpc.use_local_subchannel_pool", 1)]  # a connection for each client, as clients have
        self._channel = grpc.aio.insecure_channel(url.removeprefix("grpc://"), options=options)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._model = model
        self._stream = stream
        self._shape: list[int] | None = None
        self._call: Any = None  # of grpc.aio, which has no types

    async def generate(self, prompt: str, output: int) -> AsyncIterator[None]:
        """Yields once for every response with text."""
        try:
            if self._shape is None:
                config = await self._stub.ModelConfig(service_pb2.ModelConfigRequest(name=self._model))
                self._shape = [1, 1] if config.config.max_batch_size > 0 else [1]
            if self._call is None:
                self._call = self._stub.ModelStreamInfer()
            await self._call.write(self._request(prompt, output))
            while True:
                response = await self._call.read()
                if response == grpc.aio.EOF:
                    self._call = None
                    raise InflightError("the server closed the stream")
                if response.error_message:
                    raise InflightError(response.error_message)
                if response.infer_response.outputs:
                    yield
                if response.infer_response.parameters["triton_final_response"].bool_param:
                    return
        except grpc.aio.AioRpcError as error:
            self._call = None
            raise InflightError(f"gRPC {error.code().name}: {error.details()}") from error

    async def close(self) -> None:
        if self._call is not None:
            self._call.cancel()
        await self._channel.close()

    def _request(self, prompt: str, output: int):
        request = service_pb2.ModelInferRequest(model_name=self._model)
        request.parameters["triton_enable_empty_final_response"].bool_param = True
        text = prompt.encode()
        self._add(request, "text_input", "BYTES", len(text).to_bytes(4, "little") + text)
        self._add(request, "max_tokens", "INT32", output.to_bytes(4, "little"))
        self._add(request, "end_id", "INT32", (-1).to_bytes(4, "little", signed=True))
        self._add(request, "stream", "BOOL", bytes([self._stream]))
        return request

    def _add(self, request, name: str, datatype: str, content: bytes) -> None:
        request.inputs.add(name=name, datatype=datatype, shape=self._shape)
        request.raw_input_contents.append(content)

"""Triton's generate and generate_stream over one HTTP/1.1 connection, with as little work as a load needs.

Protocol: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_generate.md
"""

import asyncio
import json
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from inflight.errors import InflightError


class HttpClient:
    """One client; one request at a time. Failures are InflightErrors."""

    def __init__(self, url: str, model: str, stream: bool):
        address = urlsplit(url if "//" in url else f"//{url}")
        self._host, self._port = address.hostname, address.port or 8000
        self._path = f"/v2/models/{model}/{'generate_stream' if stream else 'generate'}"
        self._stream = stream
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def generate(self, prompt: str, output: int) -> AsyncIterator[None]:
        """Yields once for every response with text."""
        payload = {
            "text_input": prompt,
            "max_tokens": output,
            "bad_words": "",
            "stop_words": "",
            "end_id": -1,
            "stream": self._stream,
        }
        try:
            reader = await self._send(json.dumps(payload).encode())
            status, headers = await _read_head(reader)
            if status != 200:
                body = b"".join([part async for part in _read_body(reader, headers)])
                raise InflightError(f"HTTP {status}: {body.decode(errors='replace').strip()[:500]}")
            pending = b""
            async for part in _read_body(reader, headers):
                if not self._stream:
                    pending += part
                    continue
                *events, pending = (pending + part).split(b"\n\n")
                for event in events:
                    _check_event(event)
                    yield
            if not self._stream:
                _check_event(b"data: " + pending)
                yield
        except (OSError, EOFError, ValueError) as error:
            await self.close()
            raise InflightError(f"the connection failed: {error or type(error).__name__}") from error
        except BaseException:
            await self.close()  # what is left of the answer must not meet the next request
            raise

    async def close(self) -> None:
        if self._connection is not None:
            self._connection[1].close()
            self._connection = None

    async def _send(self, body: bytes) -> asyncio.StreamReader:
        if self._connection is None:
            self._connection = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._connection
        head = (
            f"POST {self._path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await writer.drain()
        return reader


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    return int(lines[0].split(" ")[1]), headers


async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> AsyncIterator[bytes]:
    if headers.get("transfer-encoding") != "chunked":
        yield await reader.readexactly(int(headers.get("content-length", 0)))
        return
    while size := int(await reader.readuntil(b"\r\n"), 16):
        yield (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")


def _check_event(event: bytes) -> None:
    """Raises for the error that a stream may end with: status and headers are sent by then."""
    if b'"error"' in event:
        answer = json.loads(event.removeprefix(b"data: "))
        if "error" in answer:
            raise InflightError(f"the stream ended with an error: {answer['error']}")

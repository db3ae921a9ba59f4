"""The load generator against a server whose faults are known. Through Triton: tests/python/end_to_end."""

import asyncio
import json
import subprocess
import sys
import threading

import pytest


class ScriptedServer:
    """Answers generate_stream with `pieces` events; `fault` says what goes wrong in every request's middle."""

    def __init__(self, pieces: int, fault: str | None = None):
        self.pieces, self.fault = pieces, fault
        self.payloads = []
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _serve(self, reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.payloads.append(json.loads(await reader.readexactly(length)))
                await self._answer(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, writer):
        if self.fault == "refused":
            writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 16\r\n\r\n" + b'{"error":"much"}')
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in range(self.pieces):
            if piece == self.pieces // 2 and self.fault == "hangs":
                await asyncio.sleep(60)
            if piece == self.pieces // 2 and self.fault == "disconnects":
                writer.close()
            if piece == self.pieces // 2 and self.fault == "fails":
                self._write_chunk(writer, b'data: {"error":"the engine failed"}\n\n')
                break
            self._write_chunk(writer, b'data: {"text_output":"a ')
            self._write_chunk(writer, b'word"}\n\n')
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    def _write_chunk(self, writer, content):
        writer.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")


def run(server, tmp_path, *arguments):
    report = tmp_path / "load.json"
    command = [sys.executable, "-m", "inflight.bench", "serve", "--url", f"127.0.0.1:{server.port}", "--stream"]
    command += ["--clients", "4", "--duration", "0.5", "--json", str(report), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return result, json.loads(report.read_text())


def test_a_sound_server_passes_and_every_response_is_counted(tmp_path):
    with ScriptedServer(pieces=10) as server:
        result, report = run(server, tmp_path, "--output", "20")
    assert result.returncode == 0, result.stdout + result.stderr
    figures = report["results"]
    assert figures["completed_requests"] == len(server.payloads) >= 4
    assert figures["responses_per_s"] == pytest.approx(10 * figures["requests_per_s"])
    assert figures["tokens_per_s"] == pytest.approx(20 * figures["requests_per_s"])
    assert sum(client["completed"] for client in report["per_client"]) == figures["completed_requests"]
    assert server.payloads[0]["max_tokens"] == 20


def test_a_stream_that_hangs_is_found(tmp_path):
    with ScriptedServer(pieces=10, fault="hangs") as server:
        result, report = run(server, tmp_path, "--deadline", "1")
    assert result.returncode == 1
    assert report["results"]["hung_clients"] == 4
    assert "hung clients: 4" in result.stdout


@pytest.mark.parametrize(
    "fault, message",
    [
        ("refused", 'HTTP 400: {"error":"much"}'),
        ("fails", "the stream ended with an error: the engine failed"),
        ("disconnects", "the connection failed"),
    ],
)
def test_failed_requests_are_counted_with_their_reason(tmp_path, fault, message):
    with ScriptedServer(pieces=10, fault=fault) as server:
        result, report = run(server, tmp_path)
    assert result.returncode == 1
    assert report["results"]["failed_requests"] >= 4
    assert report["results"]["completed_requests"] == 0
    assert any(message in error for error in report["results"]["errors"])
    assert message in result.stdout


def test_a_server_that_is_not_there_is_a_failed_request(tmp_path):
    with ScriptedServer(pieces=1) as server:
        pass
    result, report = run(server, tmp_path)
    assert result.returncode == 1
    assert "the connection failed" in result.stdout

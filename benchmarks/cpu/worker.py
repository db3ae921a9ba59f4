"""The parent's side of a worker: one engine in a process of its own, spoken to in JSON lines (see worker_loop.py)."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from inflight.bench.timeline import Timeline
from inflight.errors import InflightError


class Worker:
    """A context manager: the process lives inside its block. Between two calls it waits for a line and does nothing.

    script: of the child, beside this file. log: where the child's stderr goes.
    """

    def __init__(self, python: Path | str, script: str, arguments: Sequence[object], log: Path):
        self.script, self._log = script, log
        command = [str(python), str(Path(__file__).with_name(script)), *map(str, arguments)]
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True, encoding="utf-8"
            )
        try:
            self.description = self._receive("ready")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def generate(self, prompts: Sequence[Sequence[int]], outputs: Sequence[int]) -> Timeline:
        """Starts all prompts together and waits for the last token of the last one."""
        try:
            self._process.stdin.write(json.dumps({"prompts": prompts, "outputs": outputs}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # its last line says why
        timeline = Timeline(self._receive("arrivals"))
        if timeline.num_tokens != list(outputs):
            raise InflightError(f"{self.script} generated {timeline.num_tokens} tokens instead of {list(outputs)}")
        return timeline

    def close(self) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _receive(self, key: str):
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {}
        if key not in answer:
            reason = answer.get("error", "the process ended")
            raise InflightError(f"{self.script}: {reason}; its log is {self._log}")
        return answer[key]

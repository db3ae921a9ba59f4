"""The C++ oracle as a child process: one trace in, one answer out."""

import json
import os
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

MOST_ERRORS = 20_000  # characters


class Replayer:
    """Runs trace_replay, anew after a trace that made it crash or hang.

    executable: of a CMake build with INFLIGHT_BUILD_TESTS=ON. tokenizer_dir: of guided decoding. patience: seconds
    after which a trace hangs. seen: what the traces so far made happen, summed up.
    """

    def __init__(self, executable: Path, tokenizer_dir: Path, patience: int):
        self._command = [executable, "--tokenizer", tokenizer_dir, "--patience", str(patience)]
        self._process = None
        self.seen = Counter()

    def faults(self, trace: dict) -> list[str]:
        """What is wrong with the trace's outcome, one line each; nothing if every request got what it gets alone."""
        if self._process is None:
            self._errors = tempfile.TemporaryFile()
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env=_environment()
            )
        answer = b""
        try:
            self._process.stdin.write(json.dumps(trace).encode() + b"\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
            answer = json.loads(answer)
        except (BrokenPipeError, json.JSONDecodeError):
            return [f"trace_replay crashed: {self._end()}"]
        self.seen.update(answer["seen"])
        self.seen["traces"] += 1
        if answer["hangs"]:
            self._end()
        return answer["faults"]

    def close(self) -> str:
        """Ends the process. Returns what a sanitizer says at its end, if anything."""
        return self._end() if self._process else ""

    def _end(self) -> str:
        process, self._process = self._process, None
        process.communicate()
        self._errors.seek(0)
        errors = self._errors.read().decode(errors="replace")[-MOST_ERRORS:]
        self._errors.close()
        return f"exit status {process.returncode}\n{errors}" if process.returncode else ""


def _environment() -> dict[str, str]:
    """A sanitizer ends the process at its first finding, so that the trace that caused it is known."""
    return {
        **os.environ,
        "TSAN_OPTIONS": "halt_on_error=1 second_deadlock_stack=1",
        "ASAN_OPTIONS": "detect_leaks=1",
        "UBSAN_OPTIONS": "halt_on_error=1 print_stacktrace=1",
    }

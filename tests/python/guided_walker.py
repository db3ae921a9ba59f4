"""Random texts that follow a guide, from the C++ executable guided_walk."""

import json
import subprocess
from pathlib import Path

from inflight.text.tokenizer import Tokenizer

TYPES = ["json", "json_schema", "regex", "grammar", "choice"]


class Walker:
    """executable: of a CMake build with INFLIGHT_BUILD_TESTS=ON. end_token: what ends a text."""

    def __init__(self, executable: Path, tokenizer_dir: Path, vocab_size: int, end_token: str):
        self._tokenizer = Tokenizer(tokenizer_dir)
        (end_id,) = self._tokenizer.encode(end_token, add_special_tokens=False)
        command = [executable, tokenizer_dir, str(vocab_size), str(end_id)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, type: str, guide: str, walks: int, max_tokens: int, seed: int = 0) -> dict:
        request = {"type": TYPES.index(type), "guide": guide, "walks": walks, "max_tokens": max_tokens, "seed": seed}
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def texts(self, type: str, guide: str, walks: int, seed: int = 0, max_tokens: int = 5000) -> list[str]:
        """What a client gets. Each walk ends by itself, and is UTF-8."""
        answer = self.ask(type, guide, walks, max_tokens, seed)
        assert "error" not in answer, answer
        assert all(walk["ended"] for walk in answer["walks"])
        return [self.text(walk["ids"]) for walk in answer["walks"]]

    def error(self, type: str, guide: str) -> str:
        return self.ask(type, guide, walks=0, max_tokens=0)["error"]

    def close(self):
        self._process.stdin.close()
        assert self._process.wait(timeout=60) == 0

    def text(self, ids: list[int]) -> str:
        text = self._tokenizer.decode(ids)
        assert "\ufffd" not in text  # no test asks for it
        return text

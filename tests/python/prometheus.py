"""What tritonserver's metrics port says."""

import re
import time
import urllib.request
from collections.abc import Callable

_SAMPLE = re.compile(r"^(\w+)\{(.*)\} (\S+)$")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def samples(port: int, model: str) -> dict[tuple[str, str], float]:
    """(name, value of the label beside model and version) → value, of one model; "" where there is no such label."""
    found = {}
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as response:
        for line in response.read().decode().splitlines():
            if sample := _SAMPLE.match(line):
                labels = dict(_LABEL.findall(sample[2]))
                if labels.pop("model", None) == model:
                    labels.pop("version", None)
                    found[sample[1], ",".join(labels.values())] = float(sample[3])
    return found


def wait_for(condition: Callable[[], bool], timeout: float = 10.0) -> None:
    """Returns when the condition holds; AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)

"""Where the commands begin: from here on Ctrl-C ends them with a message and status 130, whatever is being imported.

Imports next to nothing. What comes before is the interpreter's own start, which no package can change: docs/serving.md.
"""

import os
import signal


def _end(number: int, _frame: object) -> None:
    """Nothing has been made yet that would have to be cleaned up."""
    os.write(2, b"inflight: stopped by SIGINT\n")
    os._exit(128 + number)


if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored (nohup)
    signal.signal(signal.SIGINT, _end)


def main() -> int:
    """The `inflight` command; the handlers are its own as soon as it is loaded."""
    from inflight.cli import main

    return main()

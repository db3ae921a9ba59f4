"""Where the commands begin: from here on Ctrl-C ends them with a message and status 130, whatever is being imported.

Imports next to nothing. What comes before is the interpreter's own start, which no package can change: docs/serving.md.
"""

import os
import signal


def _end(number: int, _frame: object) -> None:
    """Nothing has been made yet that would have to be cleaned up."""
    os.write(2, b"inflight: stopped by SIGINT\n")
    os._exit(128 + number)


# As Python has it, or scripts/inflight; where it is ignored (nohup) it stays so.
if signal.getsignal(signal.SIGINT) in (signal.default_int_handler, signal.SIG_DFL):
    signal.signal(signal.SIGINT, _end)


def main() -> int:
    """The `inflight` command; the handlers are its own as soon as it is loaded."""
    from inflight.cli import main

    return main()

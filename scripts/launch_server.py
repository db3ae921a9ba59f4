#!/usr/bin/env python3
"""Launches tritonserver: scripts/launch_server.py --world_size=1 --model_repo=DIR."""

import _signal  # see scripts/inflight

if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)

import sys  # noqa: E402

import inflight.entry  # noqa: E402,F401  catches Ctrl-C while the rest is imported
from inflight.launcher.command import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Starts tritonserver and returns, as upstream's: launch_triton_server.py --world_size=1 --model_repo=DIR."""

import sys

from inflight.launcher.command import start_in_background

if __name__ == "__main__":
    sys.exit(start_in_background(sys.argv[1:]))

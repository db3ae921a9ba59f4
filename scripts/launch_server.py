#!/usr/bin/env python3
"""Launches tritonserver: scripts/launch_server.py --world_size=1 --model_repo=DIR."""

import sys

import inflight.entry  # noqa: F401  first: catches Ctrl-C while the rest is imported
from inflight.launcher.command import main

if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Launches tritonserver: scripts/launch_server.py --world_size=1 --model_repo=DIR."""

import sys

try:
    from inflight.launcher.command import main
except KeyboardInterrupt:  # from then on, signals are caught
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())

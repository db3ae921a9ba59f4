"""Kernels of this folder's tests run in Triton's interpreter: the decorators read this when the files are loaded."""

import os

os.environ["TRITON_INTERPRET"] = "1"

"""GPU kernels in OpenAI Triton, one subject a file, and in `compiler` what compiles them ahead of time for C++.

Each file ends with its declarations (`compiler.declaration.Kernel`): the one table that says which data types, sizes
and tiles are compiled. `python -m inflight.kernels.compile` compiles them; no GPU is needed for that.
"""

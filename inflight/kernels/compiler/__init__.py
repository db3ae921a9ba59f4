"""OpenAI Triton kernels → cubins and typed C++ launchers, ahead of time."""

"""Engine → Triton model repository; templates and consistency checks."""

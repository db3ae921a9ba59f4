"""Benchmarks: python -m inflight.bench."""

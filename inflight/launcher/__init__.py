"""Finds tritonserver, starts it, waits until it is ready, stops it."""

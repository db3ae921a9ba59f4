"""Checkpoint → engine: memory plan and packing."""

"""Measurements behind benchmarks/README.md; each script prints its own table."""

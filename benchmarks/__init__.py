"""Measurements: `python -m benchmarks.selection`; results in benchmarks/results/*.json."""

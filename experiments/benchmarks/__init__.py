"""Benchmarks: `python -m experiments.benchmarks.NAME`. Ratios inside one run, never timed tests."""

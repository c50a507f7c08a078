"""Simulations and timings of the statistics, rerun by hand: `python -m tests.benchmarks.statistics.NAME`."""

"""The energy meter beside its peers on a simulated board with a known truth: `python -m tests.benchmarks.meters`."""

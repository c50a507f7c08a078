"""Benchmarks of counted work."""

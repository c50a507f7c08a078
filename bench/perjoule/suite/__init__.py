"""Suites: what to run. The file, the schedule of its trials, and the diffusers code of its cells."""

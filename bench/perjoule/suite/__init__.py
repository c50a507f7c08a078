"""Suites: the file, the schedule of its trials, and the diffusers code of its cells."""

"""Run directories: what is on disk, written and read."""

"""Doing it: from a suite to a metered, scored run."""

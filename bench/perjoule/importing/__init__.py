"""Converts measurements made elsewhere into a run."""

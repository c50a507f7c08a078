"""Turning measurements made elsewhere into a run."""

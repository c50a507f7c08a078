"""Runs suites: measures, scores and summarises."""

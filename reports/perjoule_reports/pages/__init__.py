"""Whole files: HTML, Markdown, JSON, and the index of several runs."""

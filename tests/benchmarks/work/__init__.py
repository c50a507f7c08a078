"""Profiles of counted work from published joules."""

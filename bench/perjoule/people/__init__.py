"""Asks people which picture is better: design of the study, merged answers, JOD with intervals, the metric `people`."""

"""The sections of a report in reading order, one module each. Each is a function from results to a `Section`."""

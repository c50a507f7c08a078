"""The sections of a report in reading order, one module each. Every one is a function from results to a `Section`."""

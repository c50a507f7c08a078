"""Built-in suites, prompts, pipelines, step policies, and the tiny model family."""

"""What is run: suites, prompts, pipelines, step policies, and the tiny model family."""

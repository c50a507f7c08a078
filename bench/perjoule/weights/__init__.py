"""Which models and weights there are, where their files come from, and what they are called by digest."""

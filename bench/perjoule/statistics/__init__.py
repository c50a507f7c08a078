"""From trials and scores to statements: operating points with intervals, and the frontier they form."""

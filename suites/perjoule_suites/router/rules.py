"""Rules that choose an arm from forecasts of quality.

    rule             chooses                                                        its parameter (levels in suites)
    quality-floor    the cheapest arm that misses the floor with chance at most p   the floor
    equal-marginal   the arm with the largest quality · price − joules              J per unit of quality

The chance p is promised by conformal risk control, see `perjoule.statistics.risk_control`. The lead of an arm is its
forecast above the floor, in units of the usual error of that arm's forecasts. The rule takes the cheapest arm whose
lead is at least the margin, and the best arm on average if there is none.
"""

RULES = ("quality-floor", "equal-marginal")

"""What a run would cost and which differences it could detect, before any energy is spent.

published joules per step ─┐
an earlier run ────────────┼─► Price of each cell ─► Forecast ─► text, JSON, and the refusal of what cannot fit
a short calibration ───────┘
"""

from __future__ import annotations

from perjoule.forecast.forecasting import Forecast, forecast
from perjoule.forecast.records import Anchor, Effect, Price, Projection

__all__ = ["Anchor", "Effect", "Forecast", "Price", "Projection", "forecast"]

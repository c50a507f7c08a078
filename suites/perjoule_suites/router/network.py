"""The router's network: the step predictor's, with a curve for each variant, read at the arms' step counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from perjoule.statistics.resampling import Array
from perjoule_suites.budgetfusion.network import CurveNet, Shape


class ArmNet(nn.Module):
    """Forecasts the quality of each arm.

    Args:
        text_width: Channels of the token states.
        steps: (arms,) step counts.
        variants: (arms,) number of the variant of each arm, from 0.
        hidden: Size of the network.
    """

    def __init__(self, text_width: int, steps: Sequence[int], variants: Sequence[int], hidden: int) -> None:
        super().__init__()
        self.curves = CurveNet(Shape(text_width=text_width, metrics=max(variants) + 1, hidden=hidden))
        self.register_buffer("steps", torch.tensor(steps), persistent=False)
        self.register_buffer("variants", torch.tensor(variants), persistent=False)

    def read(self, states: torch.Tensor) -> torch.Tensor:
        """Encode prompts as vectors. (n, tokens, width) -> (n, 2 hidden)."""
        return self.curves.read(states)

    def forward(self, text: torch.Tensor, places: torch.Tensor | None = None) -> torch.Tensor:
        """Return forecasts in units of their spread over the training set: (n, arms, 1).

        Args:
            text: (n, 2 hidden), the result of `read`; or token states (n, tokens, width), which are read first, so that
                a decision is a single call of a network.
            places: Not used: the arms are fixed.
        """
        values = self.curves(self.read(text) if text.ndim == 3 else text, self.steps)  # (n, arms, variants)
        index = self.get_buffer("variants")[None, :, None].expand(len(values), -1, 1)
        return values.gather(2, index)  # type: ignore[no-any-return]


@torch.inference_mode()
def forecast(network: ArmNet, states: torch.Tensor, mean: Array, spread: Array) -> Array:
    """Return the forecast quality of each arm.

    Args:
        network: The network.
        states: (n, tokens, width) token states.
        mean: (arms,) mean quality of the training set.
        spread: (arms,) its standard deviation.

    Returns:
        (n, arms).
    """
    device = next(network.parameters()).device
    units = network(states.to(device, torch.float32))[..., 0]
    return np.asarray(mean + spread * units.double().cpu().numpy(), np.float64)

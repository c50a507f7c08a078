"""The predictor's network: from token states, and latents of a peek, to quality along the step grid.

    text states (n, tokens, width) ─ linear ─ BiLSTM ─ attention pool ─┐
    predicted clean latents (n, c, h, w) ─ two convolutions ─ pool ────┼─ MLP for each step ─► (n, g, m)
    log2 of the steps (g,) ─ sines and cosines ────────────────────────┘

The BiLSTM over the prompt and the curves as a time series are the paper's; the sizes are ours, because it states
none. The network works for any grid, because the number of steps is an input.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

_STEP_FEATURES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of the network.

    Attributes:
        text_width: Channels of the text encoder's token states.
        metrics: Number of curves.
        hidden: Channels of the LSTM in each direction.
        latent_channels: Channels of the latents of a peek; 0 for a predictor that uses only the prompt.
        dropout: Dropout during training.
    """

    text_width: int
    metrics: int
    hidden: int = 48
    latent_channels: int = 0
    dropout: float = 0.2


class CurveNet(nn.Module):
    """The network in the module's diagram."""

    def __init__(self, shape: Shape) -> None:
        """Create the network with random weights."""
        super().__init__()
        hidden, width = shape.hidden, 2 * shape.hidden
        self.project = nn.Linear(shape.text_width, hidden)
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True, bidirectional=True)
        self.attention = nn.Linear(2 * hidden, 1)
        self.look = None
        if shape.latent_channels:
            self.look = nn.Sequential(
                nn.Conv2d(shape.latent_channels, 24, 3, padding=1),
                nn.SiLU(),
                nn.Conv2d(24, hidden, 3, stride=2, padding=1),
                nn.SiLU(),
            )
            width += 2 * hidden
        self.dropout = nn.Dropout(shape.dropout)
        self.mix = nn.Sequential(nn.Linear(width, 96), nn.SiLU())
        self.decode = nn.Sequential(
            nn.Linear(96 + _STEP_FEATURES, 96), nn.SiLU(), nn.Dropout(shape.dropout), nn.Linear(96, shape.metrics)
        )

    def read(self, states: torch.Tensor) -> torch.Tensor:
        """Encode prompts as vectors. (n, tokens, width) -> (n, 2 hidden)."""
        tokens, _ = self.lstm(F.silu(self.project(states)))
        weights = self.attention(tokens).softmax(1)
        pooled: torch.Tensor = (weights * tokens).sum(1)
        return pooled

    def forward(self, text: torch.Tensor, steps: torch.Tensor, latents: torch.Tensor | None = None) -> torch.Tensor:
        """Return curves in units of their spread over the training set.

        Args:
            text: (n, 2 hidden), the result of `read`.
            steps: (g,) step counts.
            latents: (n, c, h, w) predicted clean latents, for a network with a peek.

        Returns:
            (n, g, m).
        """
        if self.look is not None:
            if latents is None:
                raise ValueError("this predictor needs latents")
            features = self.look(latents)
            text = torch.cat([text, features.mean((2, 3)), features.flatten(2).std(2)], dim=1)
        mixed = self.mix(self.dropout(text))
        places = _step_features(steps).expand(len(mixed), -1, -1)
        return self.decode(torch.cat([mixed[:, None].expand(-1, len(steps), -1), places], dim=2))  # type: ignore[no-any-return]


def _step_features(steps: torch.Tensor) -> torch.Tensor:
    """Return (g, 16) sines and cosines of log2 N at eight wavelengths, the longest of 16 octaves."""
    octaves = steps.float().log2()[:, None]
    frequencies = 2 * torch.pi / 16 * 1.5 ** torch.arange(_STEP_FEATURES // 2, device=steps.device)
    return torch.cat([(octaves * frequencies).sin(), (octaves * frequencies).cos()], dim=1)

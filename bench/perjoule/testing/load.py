"""Work for a simulated board: its power, for as long as the pieces take."""

from __future__ import annotations

from perjoule.testing.nvml_simulator import NvmlSimulator


class SimulatedLoad:
    """Work in equal pieces for a simulated board with a `StepLog`; see `perjoule.meters.proving.Load`.

    Attributes:
        name: What it does.
        piece_s: How long a piece takes.
        simulator: The simulator of the board.
    """

    def __init__(
        self,
        simulator: NvmlSimulator,
        board: int = 0,
        *,
        work_w: float = 300.0,
        rest_w: float = 60.0,
        piece_s: float = 0.005,
    ) -> None:
        """Prepare work of `work_w`, with `rest_w` after it."""
        self.name = f"a simulated board at {work_w:g} W"
        self.piece_s = piece_s
        self.simulator, self._board, self._work_w = simulator, board, work_w
        self._rest_w = rest_w

    def run(self, pieces: int) -> None:
        """Set the power of the work, wait, and set the power at rest."""
        self.simulator.set_power(self._board, self._work_w)
        for _ in range(pieces):
            self.simulator.sleep(self.piece_s)
        self.simulator.set_power(self._board, self._rest_w)

"""A simulated powercap tree, for the RAPL meter on virtual time."""

from __future__ import annotations

from pathlib import Path

from perjoule.testing import VirtualClock

RANGE_UJ = 262_143_328_850
REFRESH_S = 0.01  # ten times as long as on real machines: each refresh costs a write to disk here


class FakeSysfs:
    """A powercap tree whose counters move every REFRESH_S of virtual time."""

    def __init__(
        self, root: Path, clock: VirtualClock, start_uj: int = 1_000_000, refresh_s: float = REFRESH_S
    ) -> None:
        self.root, self.clock, self.refresh_s = root, clock, refresh_s
        self.power_w: dict[str, float] = {}
        self._uj: dict[str, float] = {}
        self._start_uj = start_uj
        self.range_uj = RANGE_UJ
        clock.every(refresh_s, self._refresh)

    def add(self, folder: str, name: str, power_w: float) -> None:
        path = self.root / folder
        path.mkdir(parents=True)
        (path / "name").write_text(name + "\n")
        (path / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
        self.power_w[folder], self._uj[folder] = power_w, float(self._start_uj)
        self._write(folder)

    def _refresh(self) -> None:
        for folder, power_w in self.power_w.items():
            self._uj[folder] = (self._uj[folder] + power_w * 1e6 * self.refresh_s) % self.range_uj
            self._write(folder)

    def _write(self, folder: str) -> None:
        (self.root / folder / "energy_uj").write_text(f"{int(self._uj[folder])}\n")

    def set(self, folder: str, uj: float) -> None:
        self._uj[folder] = uj


class CpuLoad:
    """Work in equal pieces for a package of the tree; see `perjoule.meters.proving.Load`."""

    name = "a simulated CPU"

    def __init__(self, tree: FakeSysfs, work_w: float, folder: str = "intel-rapl:0", piece_s: float = 0.005) -> None:
        self.piece_s = piece_s
        self._tree, self._work_w, self._folder = tree, work_w, folder
        self._rest_w = tree.power_w[folder]

    def run(self, pieces: int) -> None:
        self._tree.power_w[self._folder] = self._work_w
        self._tree.clock.advance(pieces * self.piece_s)
        self._tree.power_w[self._folder] = self._rest_w

"""`race.json`: the design of a race, its looks, and the cells that got no further prompts.

The file is written when a race begins and replaced after each look, before any further window is measured. So an
interrupted race continues with the cells that its last look left, and the whole decision can be computed again from the
run's files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from perjoule.errors import RunError
from perjoule.files import read_json, write_json

RACE = "race.json"
SCHEMA = 1
_MOST_PROMPTS = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class DroppedCell:
    """A cell that got no further prompts after a look, because another cell surely dominates it.

    Attributes:
        cell_id: The cell.
        by: The cell that dominates it.
        prompts: How many prompts both had.
        energy_difference_j: J/image, the cell minus the other; positive.
        quality_difference: In units of the race's metric and on its own scale, the cell minus the other.
        p_value: The larger of the p-values of both axes.
    """

    cell_id: str
    by: str
    prompts: int
    energy_difference_j: float
    quality_difference: float
    p_value: float

    @property
    def words(self) -> str:
        """Why the cell was dropped, e.g. `not measured further: dominated by sd15-012 after 24 prompts`."""
        return f"not measured further: dominated by {self.by} after {self.prompts} prompts"


@dataclass(frozen=True, slots=True, kw_only=True)
class RaceLook:
    """One look: all cells that were still measured are compared.

    Attributes:
        prompts: After how many prompts, the first ones of the run.
        compared: The cells that were still measured.
        needed: Cells that a look must not drop, each with the reason.
        dropped: The cells that got no further prompts.
    """

    prompts: int
    compared: tuple[str, ...]
    needed: Mapping[str, str] = field(default_factory=dict)
    dropped: tuple[DroppedCell, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """Design and looks of a race.

    Attributes:
        metric: The quality axis: the suite's primary metric.
        alpha: The chance that the race drops any cell of the true frontier is at most this.
        level: Largest p-value at which a cell is dropped: `alpha` divided among looks and ordered pairs of cells.
        prompts: Prompts of the run.
        cells: All cells of the suite.
        look_prompts: After how many prompts the cells are compared.
        full_reference: Metrics of the suite that compare images with the longest run of their family.
        looks: The looks that were taken.
    """

    metric: str
    alpha: float
    level: float
    prompts: int
    cells: tuple[str, ...]
    look_prompts: tuple[int, ...]
    full_reference: tuple[str, ...] = ()
    looks: tuple[RaceLook, ...] = ()

    @property
    def dropped(self) -> dict[str, DroppedCell]:
        """The cells that got no further prompts, by cell id."""
        return {cell.cell_id: cell for look in self.looks for cell in look.dropped}

    @property
    def remaining(self) -> tuple[str, ...]:
        """The cells that are still measured."""
        dropped = self.dropped
        return tuple(cell for cell in self.cells if cell not in dropped)

    def prompts_of(self, cell_id: str) -> int:
        """How many prompts a cell gets by the looks so far."""
        dropped = self.dropped.get(cell_id)
        return self.prompts if dropped is None else dropped.prompts


_READER = TypeAdapter(Race)


def read_race(folder: Path) -> Race | None:
    """Return the race of a run directory; None if the run is not a race. Raises RunError if the file is damaged."""
    file = folder / RACE
    if not file.exists():
        return None
    content = read_json(file)
    if not isinstance(content, dict) or content.pop("schema", None) != SCHEMA:
        raise RunError(f"{file}: schema: this version of perjoule reads version {SCHEMA}: use the one that wrote it")
    try:
        race = _READER.validate_python(content)
    except ValidationError as error:
        detail = error.errors()[0]
        place = ".".join(map(str, detail["loc"]))
        raise RunError(f"{file}: damaged: {place}: {detail['msg'].lower()}: restore it from a copy") from None
    for cell in race.dropped.values():
        if cell.cell_id not in race.cells:
            raise RunError(f"{file}: damaged: {cell.cell_id} was dropped, but is not a cell of the race")
        if not 0 < cell.prompts <= min(race.prompts, _MOST_PROMPTS):
            raise RunError(
                f"{file}: damaged: {cell.cell_id} was dropped after {cell.prompts} of {race.prompts} prompts"
            )
    return race


def write_race(folder: Path, race: Race) -> None:
    """Store a race, and replace what is stored."""
    write_json(folder / RACE, {"schema": SCHEMA, **asdict(race)})

"""Prices from counted work: what a profile gives for the networks of each cell, before anything is drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from perjoule.errors import MeterError
from perjoule.forecast.records import Price, Projection
from perjoule.types import Assignment, Cell, Variant, Work
from perjoule.work.counter import total_work
from perjoule.work.profile import WorkProfile

# (variant, images of a call, steps) -> work of the call, or the reason why it is not known
CallWork = Callable[[Variant, int, int], Work | str]
_NO_SECONDS = "counted work has no seconds"


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedCell:
    """A cell by its counted work: the price of an image, and its floating-point operations if they are known."""

    price: Price
    flops_per_image: float | None = None


def counted_cells(plan: Sequence[Assignment], call_work: CallWork, profile: WorkProfile) -> dict[str, CountedCell]:
    """Count and price each cell of a plan, by cell id.

    An adaptive cell lies between the shortest and the longest cell of fixed steps of its family.
    """
    cells: dict[str, Cell] = {}
    sizes: dict[str, Counter[int]] = {}
    for assignment in plan:
        cell, images = assignment.cell, len(assignment.prompts)
        cells[cell.cell_id] = cell
        size = min(cell.batch_size or images, images)
        sizes.setdefault(cell.cell_id, Counter()).update({size: images // size, images % size: 1})
    counted: dict[str, CountedCell] = {}
    families: dict[str, list[CountedCell]] = {}
    for cell_id, cell in cells.items():
        if cell.steps is not None:
            counted[cell_id] = _fixed(cell, cell.steps, sizes[cell_id], call_work, profile)
            families.setdefault(cell.variant.family_name, []).append(counted[cell_id])
    for cell_id, cell in cells.items():
        if cell.steps is None:
            counted[cell_id] = _adaptive(cell, families.get(cell.variant.family_name, ()))
    return counted


def prices(counted: Mapping[str, CountedCell]) -> dict[str, Price]:
    """Return the prices alone."""
    return {cell_id: cell.price for cell_id, cell in counted.items()}


def _fixed(cell: Cell, steps: int, sizes: Mapping[int, int], call_work: CallWork, profile: WorkProfile) -> CountedCell:
    """Price a cell by its calls; `sizes`: how many calls of how many images."""
    calls: list[tuple[Work, int]] = []
    for size, times in sizes.items():
        if size and times:
            work = call_work(cell.variant, size, steps)
            if isinstance(work, str):
                return CountedCell(price=Price(reason=work))
            calls.append((work, times))
    work = total_work(calls)
    images = sum(size * times for size, times in sizes.items())
    flops = work.flops / images
    try:
        bound_j = profile.uncertainty_j(work) / images
    except MeterError as error:
        return CountedCell(price=Price(reason=str(error)), flops_per_image=flops)
    energy_j = profile.energy_j(work) / images
    others = profile.other_dtypes(work)
    return CountedCell(
        price=Price(
            energy_j=Projection(value=energy_j, low=max(energy_j - bound_j, 0.0), high=energy_j + bound_j, level=None),
            reason=f"{_NO_SECONDS}; the profile is not for {', '.join(others)}" if others else _NO_SECONDS,
            source=f"counted work, {profile.words}",
            rests_on="estimated",
            boundary=profile.boundary,
        ),
        flops_per_image=flops,
    )


def _adaptive(cell: Cell, ladder: Sequence[CountedCell]) -> CountedCell:
    known = [one.price for one in ladder if one.price.energy_j is not None]
    energies = [price.energy_j for price in known if price.energy_j is not None]
    if not energies:
        return CountedCell(
            price=Price(reason=f"its step policy decides, and no fixed cell of {cell.variant.family_name} is counted")
        )
    low, high = min(one.low for one in energies), max(one.high for one in energies)
    middle = (min(one.value for one in energies) + max(one.value for one in energies)) / 2
    return CountedCell(
        price=Price(
            energy_j=Projection(value=middle, low=low, high=high, level=None),
            reason=f"{_NO_SECONDS}; its step policy decides: between the shortest and the longest fixed cell of its "
            "family, without what the policy itself costs",
            source=known[0].source,
            rests_on="estimated",
            boundary=known[0].boundary,
        )
    )

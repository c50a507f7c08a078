"""The plan with its prices: images, evaluations, joules, minutes, disk and detectable differences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from perjoule.errors import UsageError
from perjoule.forecast.budget import Budget
from perjoule.forecast.effects import effects
from perjoule.forecast.published import anchor, evaluations_of, own_side_px, published_price
from perjoule.forecast.records import Anchor, Effect, PlannedHalving, Price, Projection, total
from perjoule.runs.directory import Run
from perjoule.types import Assignment, Cell, PromptSelection, Protocol, Provenance, Suite
from perjoule.types.price import TIMES

JOULES_PER_KWH = 3.6e6
# as `Window.repeat` has it: no further repetition is started after so long
_MOST_REPEAT_S = 60.0
# `perjoule.meters.edges.expected_uncertainty_j` of a board that rests at 60 W known to 15 %, with a counter refreshed
# every 0.1 s: whatever the length of the window
_BOARD_BOUND_J = 1.0
# `perjoule.meters.base.FORECAST_SHARE`
_OF_THE_BOUND = 0.8
# no single board draws more
_MOST_BOARD_W = 1_000.0
# a lossless PNG is rarely larger than two thirds of its pixels
_PNG_BYTES_PER_PIXEL = 2.0
# mean of the 1,824 images of the demo, 64 x 64 px: 3,780 bytes, 1,039 to 7,926
_SMALL_PNG_BYTES_PER_PIXEL = 0.92
_SMALL_SIDE_PX = 96
_DISK_BLOCK_BYTES = 4096
_FALLBACK_SIDE_PX = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class CellForecast:
    """One cell of the plan: what is to be done, and what that is expected to take.

    `images` counts every repetition asked for; `evaluations` are None where a step policy decides; `flops_per_image` is
    None where the work is not counted.
    """

    cell_id: str
    steps: int | None
    trials: int
    images: int
    evaluations: int | None
    energy_j_per_image: Projection | None
    energy_j: Projection | None
    duration_s: Projection | None
    source: str
    rests_on: Provenance | None
    boundary: str | None
    reason: str
    anchor: Anchor | None
    flops_per_image: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The forecast of a plan.

    Attributes:
        suite: Its name.
        prompts: How many.
        seeds: How many.
        blocks: How many.
        metrics: Metrics to score.
        cells: One each, by cell id.
        trials: Windows.
        images: Pipeline outputs, repetitions included.
        evaluations: Denoiser evaluations, without those of adaptive cells.
        energy_j: Energy of all windows whose price is known; None if no price is known.
        energy_kwh: The same.
        duration_s: Windows whose price is known, rests between them and the first rest; loading, warm-up, writing and
            scoring come on top.
        unpriced: Cells that `energy_j` leaves out, because nothing is known of their joules.
        disk_bytes_at_most: Upper limit of the space of the images on a disk with blocks of 4 KiB.
        disk_bytes: Expected size of the images; None if some are larger than those whose size was measured.
        image_sizes: Width and height in px of the images, each size once.
        effects: The smallest detectable differences.
        notes: What to know besides.
        selection: How the prompts were selected from a larger set; None for the stratified order.
        halving: What half the intervals would take in addition; None if neither joules nor seconds are known.
    """

    suite: str
    prompts: int
    seeds: int
    blocks: int
    metrics: tuple[str, ...]
    cells: tuple[CellForecast, ...]
    trials: int
    images: int
    evaluations: int
    energy_j: Projection | None
    energy_kwh: Projection | None
    duration_s: Projection | None
    unpriced: int
    disk_bytes_at_most: int
    effects: tuple[Effect, ...]
    notes: tuple[str, ...]
    selection: PromptSelection | None = None
    halving: PlannedHalving | None = None
    disk_bytes: int | None = None
    image_sizes: tuple[tuple[int, int], ...] = ()

    def too_small(self, budget: Budget) -> str | None:
        """Why the plan cannot fit into a budget, with what would; None if it may.

        The lower end decides, so that a budget is called too small only if it is by all that is known.
        """
        checks = (
            ("--max-joules", budget.max_joules, self.energy_j, 1.0, "J"),
            ("--max-minutes", budget.max_minutes, self.duration_s, 60.0, "min"),
        )
        for option, limit, expected, scale, unit in checks:
            if limit is None or expected is None or expected.low / scale <= limit:
                continue
            fits = math.floor(self.prompts * limit * scale / expected.value)
            fewer = f"--limit {fits} may fit" if fits else "not even one prompt in all cells may fit"
            return (
                f"{option} {limit:g} cannot hold the plan of {self.suite}: {expected.low / scale:,.4g} {unit} are the "
                f"least it is expected to take, {expected.value / scale:,.4g} the middle; {fewer}, "
                f"or take {option} {math.ceil(expected.high / scale)}"
            )
        return None


def forecast(
    suite: Suite,
    plan: Sequence[Assignment],
    *,
    measured: Mapping[str, Price],
    device: str | None,
    scatter: Run | None = None,
    flops: Mapping[str, float | None] | None = None,
    notes: Sequence[str] = (),
    selection: PromptSelection | None = None,
    sides_px: Mapping[str, int] | None = None,
) -> Forecast:
    """Put prices on a plan.

    Args:
        suite: What is to be run.
        plan: Its trials.
        measured: Prices from own windows or counted work by cell id; a cell without joules there is looked up among
            published figures.
        device: GPU that the run is planned for, None if there is none.
        scatter: Scored run that gives the scatter for the minimal detectable effects.
        flops: Counted floating-point operations per image by cell id, where they are known.
        notes: To be passed on.
        selection: To be passed on.
        sides_px: Side of the images that a model draws by itself, by variant, where its files state it.
    """
    by_cell: dict[str, list[Assignment]] = {}
    for assignment in plan:
        by_cell.setdefault(assignment.cell.cell_id, []).append(assignment)
    cells = [
        replace(_cell(parts, suite.protocol, measured, device), flops_per_image=(flops or {}).get(cell_id))
        for cell_id, parts in sorted(by_cell.items())
    ]
    energy_j = total(cell.energy_j for cell in cells)
    rests_s = suite.protocol.cooldown_s * len(plan) + suite.protocol.idle_s
    windows_s = total(cell.duration_s for cell in cells)
    remarks = [cell.anchor.remark for cell in cells if cell.anchor and cell.anchor.remark]
    bound = suite.protocol.max_uncertainty
    if bound is not None and any(cell.energy_j and not _repeats_known(measured, cell.cell_id) for cell in cells):
        remarks.append(
            f"protocol.max_uncertainty = {bound:g} lets windows repeat their work: the middle is for a counter that "
            "misses nothing, the upper end for a meter that never reaches it and repeats each window for a minute"
        )
    return Forecast(
        suite=suite.name,
        prompts=len({prompt.prompt_id for assignment in plan for prompt in assignment.prompts}),
        seeds=len(suite.protocol.seeds),
        blocks=suite.protocol.blocks,
        metrics=suite.metrics.names,
        cells=tuple(cells),
        trials=len(plan),
        images=sum(cell.images for cell in cells),
        evaluations=sum(cell.evaluations or 0 for cell in cells),
        energy_j=energy_j,
        energy_kwh=energy_j.times(1 / JOULES_PER_KWH) if energy_j else None,
        duration_s=total([windows_s, Projection(value=rests_s, low=rests_s, high=rests_s, level=windows_s.level)])
        if windows_s
        else None,
        unpriced=sum(cell.energy_j is None for cell in cells),
        disk_bytes_at_most=image_bytes_at_most(plan, sides_px),
        disk_bytes=_image_bytes(plan, sides_px),
        image_sizes=tuple(sorted({size for size, _ in _images(plan, sides_px)})),
        effects=tuple(effects(plan, suite.metrics.names, scatter)),
        notes=(*notes, *remarks),
        selection=selection,
        halving=_halving(energy_j, windows_s, counted=flops is not None),
    )


def _halving(energy_j: Projection | None, windows_s: Projection | None, *, counted: bool) -> PlannedHalving | None:
    if energy_j is None and windows_s is None:
        return None
    return PlannedHalving(
        energy_j=None if energy_j is None else energy_j.times(TIMES - 1),
        duration_s=None if windows_s is None else windows_s.times(TIMES - 1),
        shrinks="quality" if counted else "energy and quality",
    )


def image_bytes_at_most(plan: Sequence[Assignment], sides_px: Mapping[str, int] | None = None) -> int:
    """An upper guess at the space that the images of a plan take on a disk, by their sizes.

    Args:
        plan: The trials; images are stored in the first block.
        sides_px: As for `forecast`; by default those of known models, and 512 px.
    """
    return sum(
        count * math.ceil(width * height * _PNG_BYTES_PER_PIXEL / _DISK_BLOCK_BYTES) * _DISK_BLOCK_BYTES
        for (width, height), count in _images(plan, sides_px)
    )


def _image_bytes(plan: Sequence[Assignment], sides_px: Mapping[str, int] | None) -> int | None:
    """Return the expected size of the images; None if some are larger than what was measured."""
    images = list(_images(plan, sides_px))
    if any(max(size) > _SMALL_SIDE_PX for size, _ in images):
        return None
    return round(sum(count * width * height * _SMALL_PNG_BYTES_PER_PIXEL for (width, height), count in images))


def _images(plan: Sequence[Assignment], sides_px: Mapping[str, int] | None) -> Iterator[tuple[tuple[int, int], int]]:
    """Yield the size in px and the number of the images that each trial stores."""
    for assignment in plan:
        if assignment.block == 0:
            variant = assignment.cell.variant
            side_px = (sides_px or {}).get(variant.name) or own_side_px(variant.model) or _FALLBACK_SIDE_PX
            yield (variant.width_px or side_px, variant.height_px or side_px), len(assignment.prompts)


def _cell(
    parts: Sequence[Assignment], protocol: Protocol, measured: Mapping[str, Price], device: str | None
) -> CellForecast:
    cell = parts[0].cell
    price = _price(cell, measured, device)
    drawn = sum(len(part.prompts) for part in parts)
    repeats = _repeats(price, protocol, drawn / len(parts))
    longest_s = math.inf
    if repeats.high > protocol.iterations and price.repeats is None:
        longest_s = _longest_s(price, len(parts), drawn * protocol.iterations)
    energy_j = price.energy_j.times(drawn).by(repeats).at_most(longest_s * _MOST_BOARD_W) if price.energy_j else None
    duration_s = price.duration_s.times(drawn).by(repeats).at_most(longest_s) if price.duration_s else None
    images = drawn * protocol.iterations
    own = price.energy_j is not None and price.energy_j == getattr(measured.get(cell.cell_id), "energy_j", None)
    return CellForecast(
        cell_id=cell.cell_id,
        steps=cell.steps,
        trials=len(parts),
        images=images,
        evaluations=None if cell.steps is None else images * evaluations_of(cell),
        energy_j_per_image=price.energy_j,
        energy_j=energy_j,
        duration_s=duration_s,
        source=price.source,
        rests_on=price.rests_on,
        boundary=price.boundary,
        reason=price.reason,
        anchor=anchor(cell, price.energy_j.value, price.boundary) if own and price.energy_j else None,
    )


def _longest_s(price: Price, trials: int, images: int) -> float:
    """The longest that the windows can take: once through the work, and a minute of repetition each."""
    slowest_s = price.duration_s.high if price.duration_s else math.inf
    return trials * _MOST_REPEAT_S + images * slowest_s


def _price(cell: Cell, measured: Mapping[str, Price], device: str | None) -> Price:
    """Own windows first, then published figures; without either, the reasons."""
    own = measured.get(cell.cell_id)
    if own is not None and own.energy_j is not None:
        return own
    published = published_price(cell, device)
    if own is None or published.energy_j is not None:
        return published
    return Price(reason=own.reason)


def _repeats_known(measured: Mapping[str, Price], cell_id: str) -> bool:
    return cell_id in measured and measured[cell_id].repeats is not None


def _repeats(price: Price, protocol: Protocol, images: float) -> Projection:
    """How often each window will do its work: a bound makes it repeat, for a minute at most.

    The middle is for a board whose counter misses nothing. One that looks part of the time, a bare power reading, or a
    model of the power may never reach the bound, so the upper end is that minute.
    """
    least = float(protocol.iterations)
    if protocol.max_uncertainty is None:
        return Projection(value=least, low=least, high=least, level=None)
    if price.repeats is not None:
        return price.repeats
    if price.energy_j is None:
        return Projection(value=least, low=least, high=least, level=None)
    needed_j = _BOARD_BOUND_J / (_OF_THE_BOUND * protocol.max_uncertainty)
    shortest_s = price.duration_s.low if price.duration_s else price.energy_j.low / _MOST_BOARD_W
    most = max(least, math.ceil(_MOST_REPEAT_S / (shortest_s * images)) + 1.0)
    usual = min(most, max(least, math.ceil(needed_j / (price.energy_j.value * images))))
    return Projection(value=float(usual), low=least, high=most, level=None)


def require_fit(forecast: Forecast, budget: Budget) -> None:
    """Raise UsageError if the plan cannot fit into the budget."""
    problem = forecast.too_small(budget)
    if problem:
        raise UsageError(problem)

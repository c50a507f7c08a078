"""The energy of a router's decision, and of a verifier."""

from __future__ import annotations

import polars as pl

from perjoule.errors import PerjouleError
from perjoule.quality import load_metric
from perjoule.running.scoring import image_set, subset
from perjoule.runs.directory import Run
from perjoule.suite.reading import images_per_window
from perjoule.types import Work
from perjoule.work.counter import WorkCounter
from perjoule.work.profile import shipped_profiles
from perjoule_suites.router.arms import ArmScores
from perjoule_suites.router.as_run import PHASE, phase_share
from perjoule_suites.router.records import OwnCost
from perjoule_suites.router.router import Router

_AMOUNTS = ("flops", "bytes_moved", "operators", "calls")


def own_cost(run: Run, router: Router, arms: ArmScores) -> OwnCost:
    """Return the energy of a decision for one image, of as many as a window of the run has.

    In cells of the policy `router` it is measured, unless the run's joules were counted. Otherwise its work is counted.
    Its joules are those of the profile by which the run was counted, or else an upper limit: whatever joules an
    operation, a byte and a call cost, the decision costs at most as large a share of an arm's image as the largest of
    its shares of the arm's operations, bytes and calls. The text encoding is not added, because the arm needs it too.
    """
    # counted joules have nothing to do with the time that a phase takes
    measured = None if run.is_counted else _as_run(run)
    if measured is not None:
        return measured
    size = 1 if run.is_imported else images_per_window(run.suite)
    return _priced(run, arms, _decision(router, size), size, "a decision")


def metric_cost(run: Run, arms: ArmScores, metric: str) -> OwnCost:
    """Return the energy of scoring an image by a metric: its counted work, priced like that of a decision."""
    if run.is_imported:
        return _unknown("the run has no images, on which its work could be counted")
    try:
        scorer = load_metric(metric, run.suite.metrics.options.get(metric, {}), str(run.path))
        with WorkCounter(count_new=True) as counter:
            scorer.score(subset(image_set(run), [0]), lambda done: None)  # type: ignore[union-attr]
    except PerjouleError as error:
        return _unknown(f"its work could not be counted ({error})")
    work = counter.work if counter.work and counter.work.flops else None  # a metric without networks is not free
    return _priced(run, arms, work, 1, "scoring")


def _priced(run: Run, arms: ArmScores, work: Work | None, size: int, what: str) -> OwnCost:
    """Return the joules of work for `size` images."""
    if work is None:
        return _unknown(f"the work of {what} could not be counted")
    profiles = {profile.digest: profile for profile in shipped_profiles().values()}
    used = profiles.get(str(next(iter(run.windows["device_digest"].drop_nulls()), "")))
    if used is not None:
        return OwnCost(
            energy_j_per_image=used.energy_j(work) / size,
            share=None,
            method=f"counted work of {what} for {size} images, by profile {used.name!r}",
            reason=None,
        )
    counted = _per_image(run, arms)
    if not counted:
        return _unknown("the run has no cells of the policy `router`, and its arms have no counted work (work.jsonl)")
    bounds = [
        max(getattr(work, key) / size / amounts[key] for key in _AMOUNTS) * energy_j for amounts, energy_j in counted
    ]
    return OwnCost(
        energy_j_per_image=min(bounds),
        share=None,
        method=f"upper limit from the counted work of {what} for {size} images and of the arms' images",
        reason=None,
    )


def _unknown(reason: str) -> OwnCost:
    return OwnCost(energy_j_per_image=None, share=None, method="", reason=reason)


def _as_run(run: Run) -> OwnCost | None:
    trials = run.windows.filter((pl.col("policy") == "router") & pl.col("energy_j").is_not_null())
    share = phase_share(trials, PHASE)
    if share is None:
        return None
    return OwnCost(
        energy_j_per_image=share * float(trials["energy_j"].sum()) / int(trials["images"].sum()),
        share=share,
        method="share of the time of the windows of the policy `router`, times their energy",
        reason=None,
    )


def _decision(router: Router, size: int) -> Work | None:
    """Return the counted work of the decision for several prompts at once."""
    states = router.reader.states(["a"]).expand(size, -1, -1)
    with WorkCounter(count_new=True) as counter:
        router.forecast(states)
    return counter.work


def _per_image(run: Run, arms: ArmScores) -> list[tuple[dict[str, float], float]]:
    """Return counted work and joules of an image of each arm whose work was counted."""
    works, rows = run.works, []
    for arm in arms.arms:
        trials = run.windows.filter((pl.col("cell_id") == arm.cell_id) & pl.col("trial_id").is_in(list(works)))
        images = int(trials["images"].sum() or 0)
        own = [works[trial_id] for trial_id in trials["trial_id"]]
        totals = {key: sum(getattr(work, key) for work in own) / max(images, 1) for key in _AMOUNTS}
        if images and all(totals.values()):
            rows.append((totals, arm.energy_j))
    return rows

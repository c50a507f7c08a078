"""What distinguishes the series of a history that have the same title, e.g. because the suite has changed.

A run whose suite, prompts, kind of meter or metric differ begins a new series. Series of one suite that agree in
device, boundary and provenance look the same, so their headings name what differs, e.g. `steps 4`, and a later one what
changed when it began, e.g. `steps 3 → 4`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from perjoule.gating.history import LoggedRun

_MOST = 4
_DEFAULT = "default"


def title_key(run: LoggedRun) -> tuple[str, ...]:
    """Return what the heading of a series always names."""
    return run.suite, run.device, run.boundary, run.provenance


def labels(groups: Sequence[Sequence[LoggedRun]]) -> list[tuple[str, ...]]:
    """Return what distinguishes each series from the others with its title, e.g. `("steps 4",)`."""
    return [_label(group[-1], [o[-1] for o in groups if title_key(o[-1]) == title_key(group[-1])]) for group in groups]


def _label(run: LoggedRun, rivals: Sequence[LoggedRun]) -> tuple[str, ...]:
    facts = _facts(rivals)
    own = facts[rivals.index(run)]
    return _listed([f"{key} {own.get(key, _DEFAULT)}" for key in _differing(facts)])


def began_with(runs: Sequence[LoggedRun], history: Sequence[LoggedRun]) -> tuple[str, ...]:
    """Return what changed from the run before the first one of a series, e.g. `("steps 3 → 4",)`.

    Args:
        runs: The series.
        history: All runs, oldest first; those with another title are ignored.
    """
    first = runs[0]
    earlier = [run for run in history if title_key(run) == title_key(first) and run.time < first.time]
    if not earlier:
        return ()
    before, after = facts = _facts([earlier[-1], first])
    return _listed([f"{key} {before.get(key, _DEFAULT)} → {after.get(key, _DEFAULT)}" for key in _differing(facts)])


def _facts(runs: Sequence[LoggedRun]) -> list[dict[str, str]]:
    """Return the settings of runs, and what else divides series of one title.

    If a line of an earlier version has no settings, they are the digest of the suite. Settings of a variant that not
    all runs have are the variant; its name is left out if there is only one.
    """
    known = all(run.settings for run in runs)
    names = [_variants(run) if known else set() for run in runs]
    single = names[0] if len(_all(names)) == 1 else set()
    common = set[str].intersection(*names)
    facts = []
    for run, own in zip(runs, names, strict=True):
        fact = {"prompts": run.prompt_set, "meter": run.meter, "metric": run.metric}
        if not known:
            fact["suite"] = run.suite_digest
        for key, value in run.settings.items() if known else ():
            variant = max((name for name in own if key.startswith(f"{name}.")), key=len, default="")
            if key != "metrics.primary" and variant not in own - common:
                fact[key.removeprefix(f"{variant}.") if variant in single else key] = value
        facts.append(fact | {f"variant {name}": "yes" if name in own else "no" for name in _all(names) - common})
    return facts


def _all(names: Sequence[set[str]]) -> set[str]:
    return set[str]().union(*names)


def _variants(run: LoggedRun) -> set[str]:
    return {name for key, name in run.settings.items() if key == f"{name}.name"}


def _differing(facts: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the keys whose values are not equal everywhere, settings first."""
    keys = sorted({key for fact in facts for key in fact}, key=lambda key: (key in ("prompts", "meter", "metric"), key))
    return [key for key in keys if len({fact.get(key) for fact in facts}) > 1]


def _listed(texts: Sequence[str]) -> tuple[str, ...]:
    more = len(texts) - _MOST
    return (*texts[:_MOST], *((f"and {more} more",) if more > 0 else ()))

"""Checks that the images of a family can be compared with their reference, before anything is drawn.

A full-reference metric compares an image with the longest run of its family, prompt and seed. This is the distance to
that run only if both begin with the same noise and follow the same path:

    trailing spacing     129 steps  999 ─► …        leading spacing     129 steps  897 ─► …
                          25 steps  999 ─► …                             25 steps  961 ─► …
                           9 steps  999 ─► …                              9 steps  889 ─► …

With leading spacing the first timestep depends on the number of steps, so the curve of quality by steps has no plateau.
A solver that adds noise ends in another image at any number of steps. Both are problems. A solver that strides by
`1000 // N` draws worse images where N does not divide 1000, which is only noted, because the images are still those of
diffusers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from perjoule import registry
from perjoule.protocols import examines_samplers
from perjoule.types import Sampling, Suite, Variant

# of 1000; first timesteps of flow matching differ by less between solvers
_SAME_START = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlike:
    """A variant whose images cannot be compared with the longest run of its family: the facts, and the remedy."""

    facts: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingFindings:
    """What prevents comparisons with references, and steps that do not join, as sentences."""

    unlike: tuple[Unlike, ...] = ()
    strides: tuple[str, ...] = ()

    def problems(self, metrics: Sequence[str]) -> list[str]:
        """Return the errors of a suite; `metrics` are its full-reference metrics."""
        names = ", ".join(metrics)
        effect = f"so {names} would compare unlike images"
        return [f"{one.facts}, {effect}: {one.remedy}, or remove {names}" for one in self.unlike] if metrics else []

    def notes(self, metrics: Sequence[str]) -> list[str]:
        """Return the remarks on a suite; `metrics` are its full-reference metrics."""
        advice = "do not score this run with a full-reference metric such as iclip, or"
        unlike = [] if metrics else [f"{one.facts}: {advice} {one.remedy}" for one in self.unlike]
        return [*unlike, *self.strides]


def sampling_findings(suite: Suite, path: Path) -> SamplingFindings:
    """Examine the schedulers of a suite as far as their models are local.

    Args:
        suite: The suite.
        path: Its file, for messages.
    """
    factory = registry.load("generators", "diffusers", kind="generator")
    if not examines_samplers(factory):
        return SamplingFindings()
    samplings: dict[str, tuple[Sampling, ...]] = {}
    for number, variant in enumerate(suite.variants):
        found = factory.samplings(variant, _step_counts(suite, variant), where=f"{path}: variants[{number}]")
        if not isinstance(found, str):
            samplings[variant.name] = found
    return SamplingFindings(
        unlike=tuple(_unlike(suite, samplings, path)), strides=tuple(_strides(suite, samplings, path))
    )


def _step_counts(suite: Suite, variant: Variant) -> tuple[int, ...]:
    """Return a variant's step counts; for a step policy those of its family, of which it may choose any."""
    if variant.steps:
        return variant.steps
    family = (other for other in suite.variants if other.family_name == variant.family_name)
    return tuple(sorted({steps for other in family for steps in other.steps}))


def _unlike(suite: Suite, samplings: Mapping[str, Sequence[Sampling]], path: Path) -> Iterator[Unlike]:
    for number, variant in enumerate(suite.variants):
        own = samplings.get(variant.name)
        found = _reference(suite, variant.family_name, samplings)
        if not own or found is None:
            continue
        reference, longest = found
        where = f"{path}: variants[{number}]"
        long_run = f"{_cell(reference, longest)}, the longest run of its family,"
        off = [one for one in own if abs(one.first_timestep - longest.first_timestep) > _SAME_START]
        if off:
            more = f", {len(off) - 1} more of its step counts elsewhere" if len(off) > 1 else ""
            yield Unlike(
                facts=f"{where}: {_cell(variant, off[0])} begins at timestep {off[0].first_timestep:g}{more}, but "
                f"{long_run} at {longest.first_timestep:g}",
                remedy='set scheduler_args = { timestep_spacing = "trailing" } in all variants of the family',
            )
        adds, reference_adds = (any(one.stochastic for one in samplings[v.name]) for v in (variant, reference))
        if adds != reference_adds:
            solvers = [f"{own[0].scheduler} adds noise", f"{longest.scheduler} does not"]
            if reference_adds:
                solvers = [f"{longest.scheduler} adds noise to the latter", f"{own[0].scheduler} not to the former"]
            yield Unlike(
                facts=f"{where}: {_cell(variant, own[-1])} (first timestep {own[-1].first_timestep:g}) is compared "
                f"with {long_run} (first timestep {longest.first_timestep:g}), but during sampling "
                f"{' and '.join(solvers)}",
                remedy='use a deterministic solver in both, e.g. algorithm_type = "dpmsolver++", or give the variant '
                "a family of its own",
            )


def _reference(
    suite: Suite, family: str, samplings: Mapping[str, Sequence[Sampling]]
) -> tuple[Variant, Sampling] | None:
    """Return the variant and sampling that `scoring.references` takes: the longest fixed run, the first by name."""
    fixed = [
        (variant, one)
        for variant in suite.variants
        if variant.family_name == family and variant.steps
        for one in samplings.get(variant.name, ())
    ]
    return min(fixed, key=lambda pair: (-pair[1].steps, pair[0].name), default=None)


def _strides(suite: Suite, samplings: Mapping[str, Sequence[Sampling]], path: Path) -> Iterator[str]:
    """Return one sentence per scheduler, with all variants."""
    off: dict[str, list[tuple[Variant, Sampling]]] = {}
    for variant in suite.variants:
        for one in samplings.get(variant.name, ()):
            if one.stride_error:
                off.setdefault(one.scheduler, []).append((variant, one))
    for scheduler, pairs in off.items():
        worst = max((one for _, one in pairs), key=lambda one: one.stride_error * one.steps)
        counts = {variant.name: [str(n.steps) for v, n in pairs if v == variant] for variant, _ in pairs}
        cells = ", ".join(f"{name} at {', '.join(steps)} steps" for name, steps in counts.items())
        yield (
            f"{path}: {scheduler} strides by 1000 // N, so its steps do not end where the next ones begin ({cells}; by "
            f"up to {worst.stride_error} of {1000 // worst.steps} timesteps, at {worst.steps} steps): use step counts "
            'that divide 1000, or instead of DDIM scheduler = "DPMSolverMultistepScheduler", scheduler_args = '
            '{ solver_order = 1, timestep_spacing = "trailing" }'
        )


def _cell(variant: Variant, sampling: Sampling) -> str:
    return f"{variant.name}-{sampling.steps:03d}" if variant.steps else f"{variant.name} at {sampling.steps} steps"

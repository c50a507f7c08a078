from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from perjoule.statistics.comparisons import Arm, anchor_of
from perjoule.types import MetricSpec

ALIGNMENT = MetricSpec(
    name="m",
    direction="higher",
    track="alignment",
    needs_reference=False,
    unit="",
    weights_digest="none",
    licence="MIT",
    description="",
    advisory=False,
    bounds=(None, None),
)
FIDELITY = replace(ALIGNMENT, track="fidelity")


def arm(variant: str, role: Any, rungs: int, family: str = "a", batch_size: int | None = None) -> Arm:
    return Arm(
        variant=variant, role=role, policy="fixed", family=family, columns=tuple(range(rungs)), batch_size=batch_size
    )


LADDERS = (
    arm("one", "fixed", 3, batch_size=1),
    arm("four", "fixed", 5, batch_size=4),
    arm("other", "fixed", 9, family="b"),
)


@pytest.mark.parametrize(
    ("test", "spec", "anchor"),
    [
        (arm("x", "predicted", 2, batch_size=1), ALIGNMENT, "one"),
        (arm("x", "predicted", 2, batch_size=4), FIDELITY, "four"),
        (arm("x", "predicted", 2, batch_size=16), ALIGNMENT, "four"),
        (arm("x", "predicted", 2), ALIGNMENT, "four"),
        (arm("x", "distilled", 2, family="c"), ALIGNMENT, "other"),
        (arm("x", "distilled", 2, family="c"), FIDELITY, None),
        (LADDERS[0], FIDELITY, "four"),
        (LADDERS[1], FIDELITY, None),
        (LADDERS[1], ALIGNMENT, "other"),
        (LADDERS[2], ALIGNMENT, None),
    ],
)
def test_an_arm_meets_its_own_family_and_batch_size_first(test: Arm, spec: MetricSpec, anchor: str | None) -> None:
    found = anchor_of(test, (*LADDERS, test), spec)
    assert (found.variant if found else None) == anchor

"""A router that was not trained, between arms that can be drawn."""

from __future__ import annotations

import numpy as np

from perjoule.types import Variant
from perjoule_suites import diffusers_generator
from perjoule_suites.diffusers_generator import DiffusersGenerator
from perjoule_suites.prompt_states import PromptReader
from perjoule_suites.router.arms import RouterArm
from perjoule_suites.router.router import Router
from perjoule_suites.router.storage import Labels, RouterConfig, new_network

TEACHER = Variant(name="teacher", model="builtin:sd-tiny", steps=(1, 3), guidance=3.0)
STUDENT = Variant(name="student", model="builtin:sd-tiny-lcm", steps=(1,), guidance=1.0)


def undecided_router(teacher: DiffusersGenerator | None = None, student: DiffusersGenerator | None = None) -> Router:
    """A router between a student and a teacher, which are loaded unless given."""
    teacher = teacher or diffusers_generator.load(TEACHER, where="s")
    student = student or diffusers_generator.load(STUDENT, where="s")
    reader = PromptReader.of(teacher.pipeline)
    arms = tuple(
        RouterArm(cell_id=f"{v.name}-{n:03d}", variant=v, steps=n, energy_j=j, digest=g.digest)
        for v, n, j, g in ((STUDENT, 1, 1.0, student), (TEACHER, 1, 2.0, teacher), (TEACHER, 3, 4.0, teacher))
    )
    ones = np.ones(3)
    labels = Labels(
        mean=0.5 * ones, spread=0.01 * ones, error=ones, length=np.zeros((3, 3)), kinds=np.zeros((0, 3)),
        predicted=np.zeros((20, 3)), true=np.ones((20, 1, 3)),
    )  # fmt: skip
    config = RouterConfig(
        arms=arms, reader=TEACHER, text_encoder_digest=reader.digest, metric="q", rule="quality-floor", level=0.5,
        miss_rate=0.1, device="Board A", provenance="measured", boundary="gpu-board", kinds=(), hidden=8, prompts=30,
        seen=(), seeds=1, collected_j=None,
    )  # fmt: skip
    return Router(
        config=config, network=new_network(arms, reader.states(["a"]).shape[2], 8), labels=labels, reader=reader
    )

from __future__ import annotations

from collections.abc import Sequence

import pytest

from perjoule.protocols import ImageGenerator
from perjoule.running.device import _load_once
from perjoule.running.trial import GeneratorCache
from perjoule.testing import FakeFactory
from perjoule.types import Cell, Variant

OTHER = {"revision": None, "files": {"unet.safetensors": "ab" * 32}}


class WithModels:
    """A policy that loads a model itself."""

    sources = {"me/other": OTHER}  # noqa: RUF012

    def prepare(self, generator: ImageGenerator, prompts: Sequence[str]) -> None:
        pass


class WithoutModels:
    def prepare(self, generator: ImageGenerator, prompts: Sequence[str]) -> None:
        pass


@pytest.mark.parametrize(("policy", "expected"), [(WithModels, [("me/other", OTHER)]), (WithoutModels, [])])
def test_the_weights_that_a_policy_loads_are_recorded(
    policy: type, expected: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perjoule.running.device.load_policy", lambda cell, where: policy())
    cell = Cell(cell_id="v-1", variant=Variant(name="v", model="me/model", levels=(1.0,), policy="p"), level=1.0)
    generators = GeneratorCache(FakeFactory(), lambda variant: "s.toml")
    assert _load_once(cell, generators, ["a cat"])[1] == expected

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from perjoule.gating.suite_settings import settings_of, suite_digest
from perjoule.suite.reading import load_suite
from perjoule.types import Protocol
from tests.support.suites import suite_text


def test_the_digest_of_a_suite_ignores_what_has_no_effect(tmp_path: Path) -> None:
    file = tmp_path / "suite.toml"
    file.write_text(suite_text({"steps": [1]}, protocol={"seeds": [1]}))
    suite = load_suite(file)
    digest = suite_digest(suite)
    assert suite_digest(replace(suite, title="another", description="another", name="another")) == digest
    assert suite_digest(replace(suite, protocol=replace(suite.protocol, order_seed=9))) == digest
    assert Protocol().iterations == 1
    others = (
        replace(suite, protocol=replace(suite.protocol, iterations=3)),
        replace(suite, variants=(replace(suite.variants[0], guidance=1.5), *suite.variants[1:])),
        replace(suite, metrics=replace(suite.metrics, options={suite.metrics.primary: {"a": 1}})),
    )
    assert len({digest, *map(suite_digest, others)}) == 4


def test_settings_are_what_the_suite_states(tmp_path: Path) -> None:
    file = tmp_path / "suite.toml"
    file.write_text(suite_text({"steps": [1, 2]}, protocol={"seeds": [1, 2]}))
    suite = load_suite(file)
    settings = settings_of(suite)
    name = suite.variants[0].name
    assert (settings[f"{name}.steps"], settings["protocol.seeds"]) == ("[1, 2]", "[1, 2]")
    # equal digests and equal settings are the same thing
    longer = replace(suite, protocol=replace(suite.protocol, iterations=3))
    assert dict(settings_of(longer).items() - settings.items()) == {"protocol.iterations": "3"}
    assert settings_of(replace(suite, title="another")) == settings

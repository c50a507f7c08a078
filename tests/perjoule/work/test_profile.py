from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.benchmarks.work.published import A100, H100, MODELS, figures, image_work
from tests.support.work import PROFILE

from perjoule.errors import MeterError
from perjoule.types import Work, WorkPart
from perjoule.work.profile import read_profile, shipped_profiles, write_profile


def work(*, device: str = "cpu", dtype: str = "float32", unknown: tuple[str, ...] = ()) -> Work:
    part = WorkPart(name="Net", calls=2, flops=10**9, bytes_moved=10**8, operators=100)
    return Work(parts=(part,), devices=(device,), dtypes=(dtype,), unknown=unknown)


def test_joules_add_up() -> None:
    assert PROFILE.energy_j(work()) == pytest.approx(1.0 + 1.0 + 1.0 + 1.0)
    assert PROFILE.uncertainty_j(work()) == pytest.approx(4.0 * 0.5)


def test_another_dtype_widens_the_bound() -> None:
    other = work(dtype="float16")
    assert PROFILE.other_dtypes(other) == ("float16",)
    assert PROFILE.uncertainty_j(other) == pytest.approx(4.0 * (4 * 1.5 - 1))


def test_unknown_operators_widen_the_bound_to_the_whole() -> None:
    assert PROFILE.uncertainty_j(work(unknown=("my::op",))) == PROFILE.energy_j(work())


def test_another_device_is_refused_with_a_remedy() -> None:
    with pytest.raises(MeterError, match=r"'one' is for cpu, the work was done on cuda: .*--meter work:NAME"):
        PROFILE.uncertainty_j(work(device="cuda"))


def test_the_shipped_profiles_are_valid_and_say_where_they_come_from() -> None:
    profiles = shipped_profiles()
    assert "cpu" in profiles
    assert all(len(one.origin) > 20 for one in profiles.values())


def test_a_written_profile_reads_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    write_profile(PROFILE, file)
    back = read_profile(file)
    assert back.name == str(file)
    assert back.energy_j(work()) == PROFILE.energy_j(work())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"j_per_flop": -1.0}, "j_per_flop"),
        ({"j_per_flop": "many"}, "j_per_flop"),
        ({"level_error": None}, "level_error"),
        ({"device": None}, "device"),
        ({"boundary": "house"}, "boundary"),
    ],
)
def test_a_damaged_profile_names_its_key(tmp_path: Path, change: dict[str, object], said: str) -> None:
    file = tmp_path / "mine.json"
    write_profile(PROFILE, file)
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(MeterError, match=f"mine.json is not a profile of counted work: {said}"):
        read_profile(file)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}'])
def test_another_file_is_no_profile(tmp_path: Path, text: str) -> None:
    file = tmp_path / "mine.json"
    file.write_text(text)
    with pytest.raises(MeterError, match=r"mine\.json"):
        read_profile(file)


@pytest.mark.slow
def test_the_profiles_of_boards_give_published_joules() -> None:
    model = MODELS[0]
    evaluation = model.denoiser(model.rows)
    # 0.8 TFLOP a row for Stable Diffusion 1.5 at 512 pixels
    assert evaluation.flops / model.rows == pytest.approx(0.80e12, rel=0.01)
    profiles = {one.device_model: one for one in shipped_profiles().values()}
    fewest, *_, most = (figure["energy_j"] for figure in figures(model.name, A100))
    assert profiles[A100].energy_j(evaluation) == pytest.approx((most - fewest) / 20, rel=0.15)
    (figure,) = figures(model.name, H100)
    assert profiles[H100].energy_j(image_work(model, figure["steps"], evaluation)) == pytest.approx(
        figure["energy_j"], rel=0.15
    )

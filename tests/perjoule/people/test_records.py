"""Studies and answers as JSON: they come back as they were, and whatever was changed is one error."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perjoule.errors import UsageError
from perjoule.people.records import (
    Study,
    StudyIndex,
    as_object,
    parsed_answers,
    parsed_study,
    study_digest,
)
from tests.support.observers import answer_file, answers

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def test_a_study_comes_back_as_it_was(made: tuple[Study, Path]) -> None:
    text = json.dumps(as_object(made[0]), ensure_ascii=False)
    assert parsed_study(text, "study.json") == made[0]
    assert made[0].study_id == study_digest(json.loads(text))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.data())
def test_whatever_is_changed_in_a_study_is_one_error(made: tuple[Study, Path], data: Any) -> None:
    content = as_object(made[0])
    key = data.draw(st.sampled_from(sorted(content)))
    content[key] = data.draw(JSON)
    again = None
    with suppress(UsageError):
        again = parsed_study(json.dumps(content), "study.json")
    # e.g. an absent display is the default one
    assert again in (None, made[0])


@given(st.text() | JSON.map(json.dumps))
def test_any_text_is_answers_or_one_error(text: str) -> None:
    with pytest.raises(UsageError, match=r"^answers\.json"):
        parsed_answers(text, "answers.json")


def test_a_trial_of_the_study_is_recognised_in_both_orders(made: tuple[Study, Path]) -> None:
    index = StudyIndex(made[0])
    pictures = {p.arm: p.picture_id for p in made[0].pictures if p.prompt_id == made[0].prompts[0].prompt_id}
    one, other = (pictures[arm] for arm in made[0].arms[:2])
    assert index.trial_of(f"main-{one}-{other}").left_arm == made[0].arms[0]
    assert index.trial_of(f"repeat-{other}-{one}").kind == "repeat"
    elsewhere = next(p.picture_id for p in made[0].pictures if p.arm == made[0].arms[1] and p.picture_id != other)
    for bad in (f"main-{one}-{one}", f"main-{one}-{elsewhere}", f"check-{one}-{other}", "main", "main-", ""):
        with pytest.raises(UsageError, match="no such trial"):
            index.trial_of(bad)


def test_exported_answers_are_read(made: tuple[Study, Path]) -> None:
    given_ = answers(made[0], dict.fromkeys(made[0].arms, 0.0))
    assert parsed_answers(answer_file(made[0], given_), "a.json") == tuple(given_)


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("pictures", {"file": "pictures/../../etc/passwd"}, "must be pictures/….png"),
        ("pictures", {"arm": "nobody"}, "its arm or prompt is not in the study"),
        ("trials", {"left": "p999"}, "a picture or its prompt is not in the study"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    made: tuple[Study, Path], part: str, change: dict[str, str], words: str
) -> None:
    """With a digest that fits: whoever makes a study by another program gets an error, too."""
    content = as_object(made[0])
    content[part][0] |= change
    content["study_id"] = study_digest(content)
    with pytest.raises(UsageError, match=words):
        parsed_study(json.dumps(content), "study.json")

"""A study and its answers as frozen records, checked when they are read.

Files in the folder of a study:

    study.json       the study: pictures with digests, trials, sessions, screening rule; never changed after `study new`
    pictures/        one PNG per picture; the name does not disclose the arm
    answers.jsonl    merged answers, one `Answer` per line; written by `perjoule study add`
    answers.sqlite   answers of `perjoule study serve`: table `answers` with the columns `observer`, `trial_id`
                     (together the primary key) and `answer`, the JSON text of an `Answer`

An arm of a study is a cell of the run, e.g. `sd15-025`. A page exports its answers as an `AnswerFile`.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen

from perjoule.errors import UsageError
from perjoule.files import strict_json, whole_characters

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SCHEMA: Literal[1] = 1
STUDY_FILE, ANSWERS_FILE, DATABASE_FILE, PICTURES = "study.json", "answers.jsonl", "answers.sqlite", "pictures"

Question = Literal["preference", "reference"]
TrialKind = Literal["practice", "check", "main", "repeat"]
Choice = Literal["left", "right", "equal"]
# who answered; numbers from different provenances are never pooled
AnswerProvenance = Literal["people", "simulated", "model"]

# what a check shows instead of an arm; a colon cannot occur in the name of an arm
NOISE, OTHER_PROMPT = "foil:noise", "foil:other-prompt"

# a random id of the page, or a name in an imported table
Identifier = Annotated[str, MinLen(1), MaxLen(200)]
Text = Annotated[str, MaxLen(20_000)]
Digest = Annotated[str, MinLen(64), MaxLen(64)]
Count = Annotated[int, Ge(0)]
# as JavaScript reads numbers exactly up to 2**53; a run's seed may be larger, so it is written as text
Seed = Annotated[str, MaxLen(20)]
Milliseconds = Annotated[float, Ge(0), Le(1e10)]

# configuration of pydantic: no unknown keys, no silent conversion
_STRICT = {"extra": "forbid", "strict": True, "allow_inf_nan": False}
_FILE = re.compile(rf"{PICTURES}/[0-9a-f]{{16,64}}\.png")


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPrompt:
    """A prompt, as it is shown above the pictures."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    prompt_id: Identifier
    text: Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture of the study.

    Attributes:
        picture_id: Unique in the study, e.g. `p17`.
        arm: The arm that drew it; `foil:noise` for noise; None for a reference.
        prompt_id: Its prompt.
        seed: Its seed, as text.
        file: Path in the folder of the study, `pictures/….png`.
        sha256: SHA-256 of the file's bytes.
        pixels_sha256: SHA-256 of its pixels, as in `images.parquet` of the run.
        width_px: Width.
        height_px: Height.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    picture_id: Identifier
    arm: Identifier | None
    prompt_id: Identifier
    seed: Seed
    file: Text
    sha256: Digest
    pixels_sha256: Digest
    width_px: Annotated[int, Gt(0)]
    height_px: Annotated[int, Gt(0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One question to an observer: two pictures for one prompt, and a reference if the question needs one.

    Attributes:
        trial_id: `KIND-LEFT-RIGHT`, e.g. `main-p12-p47`. An observer answers each trial once.
        kind: `practice` and `check` are not used for scaling; `repeat` shows an earlier pair with its sides swapped.
        prompt_id: The prompt that is shown.
        seed: Seed of the pictures, as text.
        left: Picture id.
        right: Picture id.
        left_arm: Arm of the left picture, to be copied to the answer; `foil:noise` or `foil:other-prompt` in checks.
        right_arm: Arm of the right picture.
        reference: Picture id of the reference; None for the question `preference`.
        expected: The right answer of a check or practice trial; None where there is no right answer.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    trial_id: Identifier
    kind: TrialKind
    prompt_id: Identifier
    seed: Seed
    left: Identifier
    right: Identifier
    left_arm: Identifier
    right_arm: Identifier
    reference: Identifier | None = None
    expected: Choice | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Screening:
    """Rule by which observers are excluded, fixed before the first answer.

    An observer is excluded if one of the criteria applies. Criteria without enough answers do not apply.

    Attributes:
        most_failed_checks: Largest share of attention checks with a wrong answer.
        least_checks: Number of answered checks below which the criterion on checks does not apply.
        log_likelihood_ratio: Excluded if the log-likelihood of the answers by the scale of the other observers, less
            that of random answers, is below this, and
        honest_probability: somebody who follows that scale answers as badly with less than this probability.
        least_answers: Number of answers below which the criterion on likelihood does not apply.
        fastest_median_ms: Smallest median response time.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    most_failed_checks: Annotated[float, Ge(0), Le(1)] = 0.34
    least_checks: Count = 3
    log_likelihood_ratio: float = 0.0
    honest_probability: Annotated[float, Gt(0), Lt(1)] = 0.01
    least_answers: Count = 10
    fastest_median_ms: Annotated[float, Ge(0)] = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """Planned size: observers, main trials for each of them (without repeats), and the sum of main answers."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    observers: Count
    main_trials: Count
    answers: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class Display:
    """How the pictures are to be shown.

    Attributes:
        width_mm: Width on the screen, or the largest that fits the window.
        scaling: `pixelated`: enlarged by the largest whole number of device pixels that keeps to the width;
            `auto`: scaled by the browser.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    width_mm: Annotated[float, Gt(0), Le(1_000)] = 80.0
    scaling: Literal["auto", "pixelated"] = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A study, as in `study.json`.

    Attributes:
        schema: Version of the file.
        study_id: SHA-256 of all other fields; answers to another study are refused.
        title: For people who take part; plain text.
        contact: Who asks, and how to reach them; plain text, shown with the consent.
        question: `preference`: which is the better picture of this text; `reference`: which is closer to the reference.
        ties: Whether "no difference" is a possible answer.
        arms: Names of the arms.
        prompts: The prompts.
        pictures: All pictures: of the arms, references and foils.
        trials: The trials of all sessions, each once. `serve` may also ask other main trials, see `trial_of`.
        sessions: One sequence of trial ids per planned observer, in the order in which they are shown: practice first.
        seed: Seed of the design.
        screening: Rule by which observers are excluded.
        planned: Planned size.
        display: How the pictures are to be shown.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    schema: Literal[1]
    study_id: Digest
    title: Text
    contact: Text
    question: Question
    ties: bool
    arms: tuple[Identifier, ...]
    prompts: tuple[StudyPrompt, ...]
    pictures: tuple[Picture, ...]
    trials: tuple[Trial, ...]
    sessions: tuple[tuple[Identifier, ...], ...]
    seed: Count
    screening: Screening
    planned: Planned
    display: Display = field(default_factory=Display)


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewport:
    """Sizes in CSS pixels of the window and the left picture, and of a CSS pixel in mm if it was calibrated."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    width_px: Annotated[float, Ge(0), Le(1e6)]
    height_px: Annotated[float, Ge(0), Le(1e6)]
    device_pixel_ratio: Annotated[float, Gt(0), Le(100)] = 1.0
    mm_per_px: Annotated[float, Gt(0), Le(100)] | None = None
    picture_width_px: Annotated[float, Ge(0), Le(1e6)] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer of an observer. An observer has at most one answer per trial.

    Attributes:
        study_id: The study.
        observer: Random id of the observer.
        trial_id: The trial.
        left: Arm of the left picture, as in the trial.
        right: Arm of the right picture.
        choice: The picture that was chosen, or `equal` for no difference.
        shown_at_ms: When the pictures appeared, from the observer's start, by a clock that does not go back.
        response_ms: From then to the answer.
        viewport: The window; None if it is unknown.
        provenance: Who answered.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    study_id: Digest
    observer: Identifier
    trial_id: Identifier
    left: Identifier
    right: Identifier
    choice: Choice
    shown_at_ms: Milliseconds
    response_ms: Milliseconds
    provenance: AnswerProvenance
    viewport: Viewport | None = None

    @property
    def won(self) -> float:
        """1 if the left picture was chosen, 0 if the right one, ½ for no difference."""
        return {"left": 1.0, "right": 0.0, "equal": 0.5}[self.choice]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerFile:
    """Answers as a page exports them."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    schema: Literal[1]
    study_id: Digest
    answers: tuple[Answer, ...]


class StudyIndex:
    """Looks up the parts of a study by their ids."""

    def __init__(self, study: Study) -> None:
        """Index the study; see `checked_study` for its consistency."""
        self.study = study
        self.pictures = {picture.picture_id: picture for picture in study.pictures}
        self.texts = {prompt.prompt_id: prompt.text for prompt in study.prompts}
        self._trials = {trial.trial_id: trial for trial in study.trials}
        self._references = {(p.prompt_id, p.seed): p.picture_id for p in study.pictures if p.arm is None}

    def trial_of(self, trial_id: str) -> Trial:
        """Return a trial of the sessions, or any main or repeated trial of two arms for one prompt and seed.

        Raises:
            UsageError: If the study has no such trial.
        """
        if (trial := self._trials.get(trial_id)) is not None:
            return trial
        kind, _, pair = trial_id.partition("-")
        left, _, right = pair.partition("-")
        if kind in ("main", "repeat") and left in self.pictures and right in self.pictures:
            shown = self.pictures[left], self.pictures[right]
            arms = set(self.study.arms)
            comparable = (shown[0].prompt_id, shown[0].seed) == (shown[1].prompt_id, shown[1].seed)
            if comparable and shown[0].arm != shown[1].arm and shown[0].arm in arms and shown[1].arm in arms:
                return self.pair(left, right, "repeat" if kind == "repeat" else "main")
        raise UsageError(f"trial_id = {trial_id!r}: study {self.study.study_id[:12]} has no such trial")

    def pair(self, left: str, right: str, kind: TrialKind = "main") -> Trial:
        """Return the trial that shows two pictures of arms, given by their ids."""
        ours, theirs = self.pictures[left], self.pictures[right]
        assert ours.arm is not None
        assert theirs.arm is not None
        return Trial(
            trial_id=f"{kind}-{left}-{right}",
            kind=kind,
            prompt_id=ours.prompt_id,
            seed=ours.seed,
            left=left,
            right=right,
            left_arm=ours.arm,
            right_arm=theirs.arm,
            reference=self.reference_of(ours.prompt_id, ours.seed),
        )

    def reference_of(self, prompt_id: str, seed: str) -> str | None:
        """Return the picture id of the reference; None if the question needs none."""
        return self._references[prompt_id, seed] if self.study.question == "reference" else None

    def check(self, answer: Answer) -> Trial:
        """Return the trial of an answer.

        Raises:
            UsageError: If the answer belongs to another study, or does not fit its trial.
        """
        if answer.study_id != self.study.study_id:
            raise UsageError(
                f"study_id = {answer.study_id[:12]}…: an answer to another study, not to {self.study.study_id[:12]}…"
            )
        trial = self.trial_of(answer.trial_id)
        if (answer.left, answer.right) != (trial.left_arm, trial.right_arm):
            raise UsageError(
                f"trial_id = {answer.trial_id!r}: left = {answer.left!r}, right = {answer.right!r}: the study has "
                f"{trial.left_arm!r} and {trial.right_arm!r}"
            )
        if answer.choice == "equal" and not self.study.ties:
            raise UsageError(f"trial_id = {answer.trial_id!r}: choice = 'equal': the study does not allow ties")
        return trial


def study_digest(content: dict[str, Any]) -> str:
    """Return the SHA-256 of a study's JSON object, without its `study_id`."""
    rest = {key: value for key, value in content.items() if key != "study_id"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, allow_nan=False).encode()).hexdigest()


def as_object(record: Study | Answer | AnswerFile) -> dict[str, Any]:
    """Return the JSON object of a record."""
    value: dict[str, Any] = json.loads(json.dumps(asdict(record), allow_nan=False))
    return value


def with_digest(study: Study) -> Study:
    """Return the study with its digest as `study_id`; raises UsageError if a part of it is invalid."""
    # as it will be read again, e.g. with 80.0 for 80
    checked: Study = _parsed(Study, json.dumps(as_object(study)), "study")
    return replace(checked, study_id=study_digest(as_object(checked)))


def parsed_study(content: str | bytes, where: str) -> Study:
    """Read a study.

    Raises:
        UsageError: If it is damaged, was changed after `study new`, or belongs to another version; names `where`.
    """
    study: Study = _parsed(Study, content, where)
    if (digest := study_digest(as_object(study))) != study.study_id:
        raise UsageError(
            f"{where}: study_id = {study.study_id[:12]}…: the content has {digest[:12]}…: the study was changed after "
            "`perjoule study new`; restore it, or make a new study"
        )
    _check(study, where)
    return study


def parsed_answers(content: str | bytes, where: str) -> tuple[Answer, ...]:
    """Read the answers of an exported file; `StudyIndex.check` compares them with their study.

    Raises:
        UsageError: If it is damaged; names `where`.
    """
    file: AnswerFile = _parsed(AnswerFile, content, where)
    return file.answers


def parsed_answer(content: str | bytes, where: str) -> Answer:
    """Read one answer; raises UsageError that names `where`."""
    answer: Answer = _parsed(Answer, content, where)
    return answer


def _parsed(kind: Any, content: str | bytes, where: str) -> Any:
    from pydantic import ValidationError

    try:
        whole_characters(strict_json(content))
        return _reader(kind).validate_json(content)
    except ValidationError as error:
        detail = error.errors()[0]
        place = ".".join(str(part) for part in detail["loc"])
        value = "" if detail["type"] == "missing" else f" = {repr(detail['input'])[:80]}"
        raise UsageError(f"{where}: {place or 'content'}{value}: {detail['msg'].lower()}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not JSON: {str(error)[:200]}") from None


@cache
def _reader(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _check(study: Study, where: str) -> None:
    """Raise UsageError if the parts of a study do not fit each other."""
    for what, ids in (
        ("arms", list(study.arms)),
        ("prompts", [prompt.prompt_id for prompt in study.prompts]),
        ("pictures", [picture.picture_id for picture in study.pictures]),
        ("trials", [trial.trial_id for trial in study.trials]),
    ):
        if len(set(ids)) < len(ids):
            raise UsageError(f"{where}: {what}: an id occurs twice")
    pictures, prompts = ({p.picture_id for p in study.pictures}, {p.prompt_id for p in study.prompts})
    for picture in study.pictures:
        if not _FILE.fullmatch(picture.file):
            raise UsageError(f"{where}: pictures.{picture.picture_id}: file = {picture.file!r}: must be pictures/….png")
        if picture.arm not in {*study.arms, NOISE, None} or picture.prompt_id not in prompts:
            raise UsageError(f"{where}: pictures.{picture.picture_id}: its arm or prompt is not in the study")
    for trial in study.trials:
        if not {trial.left, trial.right, trial.reference or trial.left} <= pictures or trial.prompt_id not in prompts:
            raise UsageError(f"{where}: trials.{trial.trial_id}: a picture or its prompt is not in the study")
    trials = {trial.trial_id for trial in study.trials}
    for number, session in enumerate(study.sessions):
        if not set(session) <= trials or len(set(session)) < len(session):
            raise UsageError(f"{where}: sessions.{number}: a trial is not in the study, or occurs twice")

"""Makes a study from a run: chooses the pictures, designs the sessions, writes the folder completely or not at all."""

from __future__ import annotations

import hashlib
import io
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from perjoule.errors import RunError, UnknownNameError, UsageError
from perjoule.files import write_bytes, write_json
from perjoule.opening import open_inside
from perjoule.people import design
from perjoule.people.design import SECONDS_PER_TRIAL
from perjoule.people.records import (
    NOISE,
    PICTURES,
    STUDY_FILE,
    Display,
    Picture,
    Planned,
    Question,
    Screening,
    Study,
    StudyPrompt,
    as_object,
    with_digest,
)
from perjoule.protocols import Images
from perjoule.runs.directory import Run
from perjoule.runs.pictures import pixel_digest, read_picture
from perjoule.runs.references import references
from perjoule.statistics.grid import cell_order

DEFAULT_PAIRS = 60
DEFAULT_OBSERVERS = 15
_NOISE_PICTURES = 2
# noise in blocks of so many pixels, which PNG compresses
_NOISE_BLOCK = 8
# pictures of at most this width are enlarged by whole numbers of pixels, larger ones are scaled by the browser
_SMALL_PX = 256
BASELINE = "baseline:"


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRequest:
    """What is asked of `perjoule study new`.

    Attributes:
        question: What people are asked.
        arms: Cells, or variants for all their cells; empty for all.
        pairs: Main trials per observer; None for 60, or as many as there are.
        observers: Planned number of observers, and of sessions.
        prompts: Use only the first prompts; None for all.
        ties: Allow "no difference".
        seed: Seed of the design.
        title: For people who take part; a default if empty.
        contact: Who asks, and how to reach them.
        screening: Rule by which observers are excluded.
        display: How the pictures are to be shown.
    """

    question: Question = "preference"
    arms: Sequence[str] = ()
    pairs: int | None = None
    observers: int = DEFAULT_OBSERVERS
    prompts: int | None = None
    ties: bool = False
    seed: int = 0
    title: str = ""
    contact: str = ""
    screening: Screening = field(default_factory=Screening)
    display: Display = field(default_factory=Display)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewStudy:
    """What `study new` prints. `answers`: planned main answers, which are the ones that are scaled."""

    study: str
    study_id: str
    question: Question
    arms: tuple[str, ...]
    prompts: int
    observers: int
    trials_per_observer: int
    answers: int
    minutes_per_observer: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """A picture with the bytes of its file."""

    picture: Picture
    content: bytes


def new_study(run: Run, request: StudyRequest, out: Path, baseline: Run | None = None) -> Study:
    """Write the folder of a study.

    Args:
        run: The run whose pictures are compared.
        request: What is asked.
        out: Folder to be created.
        baseline: A second run, for a study that a gate can use; its cells become arms named `baseline:CELL`.

    Raises:
        UsageError: If the request cannot be met; nothing is written.
        RunError: If a picture is missing, or is not the one that was measured; nothing is written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out {out}: exists and is not an empty folder: name another folder")
    if request.observers < 1:
        raise UsageError(f"--observers {request.observers}: must be at least 1")
    images = _images(run, baseline)
    arms = _arms(run, baseline, images, request)
    arms, reference_of = _references(run, images, arms, request) if request.question == "reference" else (arms, {})
    if len(arms) < 2:
        raise UsageError(
            f"{run.path}: a study compares at least two arms, and there is {len(arms)} ({', '.join(arms) or 'none'}): "
            "add cells to --arms, or use a run with several cells"
        )
    shown = _shown(run, images, arms, request)
    most = design.most_pairs(len(arms), len(shown))
    pairs = min(most, DEFAULT_PAIRS) if request.pairs is None else request.pairs
    if not 1 <= pairs <= most:
        raise UsageError(
            f"--pairs {pairs}: {len(arms)} arms and {len(shown)} prompts make {most} different pairs, and an observer "
            f"sees each at most once: give 1 to {most}, or use more prompts or arms"
        )
    texts = {prompt.prompt_id: prompt.text for prompt in run.prompt_set}
    sources = _sources(images, arms, shown, reference_of)
    sources += _noise(sources, sources[0].picture.prompt_id, request.seed)
    sources = [
        replace(source, picture=replace(source.picture, picture_id=f"p{number}"))
        for number, source in enumerate(_shuffled(sources, request.seed))
    ]
    study = Study(
        schema=1,
        study_id="0" * 64,
        title=request.title or "Which picture is better?",
        contact=request.contact,
        question=request.question,
        ties=request.ties,
        arms=tuple(arms),
        prompts=tuple(StudyPrompt(prompt_id=prompt, text=texts.get(prompt, "")) for prompt, _ in shown),
        pictures=tuple(source.picture for source in sources),
        trials=(),
        sessions=(),
        seed=request.seed,
        screening=request.screening,
        planned=Planned(observers=request.observers, main_trials=pairs, answers=request.observers * pairs),
        display=replace(
            request.display,
            scaling="pixelated" if max(source.picture.width_px for source in sources) <= _SMALL_PX else "auto",
        ),
    )
    trials, sessions = design.sessions(
        study, _stock(study, run, arms, shown), observers=request.observers, main=pairs, seed=request.seed
    )
    study = with_digest(replace(study, trials=trials, sessions=sessions))
    _write(study, {source.picture.file: source.content for source in sources}, out)
    return study


def _images(run: Run, baseline: Run | None) -> pl.DataFrame:
    """Images of the run, and of the baseline under arms of its own: columns of `images.parquet`, `arm` and `folder`."""
    frames = []
    for source, prefix in ((run, ""), (baseline, BASELINE)):
        if source is None:
            continue
        if source.is_imported or source.images.is_empty() or (source.images["file"].fill_null("") == "").any():
            raise RunError(f"{source.path}: the run has no images, so there is nothing to show: use a run of "
                           "`perjoule run`, not an imported table")  # fmt: skip
        frames.append(
            source.images.with_columns(arm=pl.lit(prefix) + pl.col("cell_id"), folder=pl.lit(str(source.path)))
        )
    return pl.concat(frames)


def _arms(run: Run, baseline: Run | None, images: pl.DataFrame, request: StudyRequest) -> list[str]:
    """The arms, in the order of the suite; names are cells, or variants for all their cells."""
    order = [*cell_order(run), *(BASELINE + cell for cell in (cell_order(baseline) if baseline else []))]
    present = set(images["arm"])
    order = [arm for arm in order if arm in present]
    if not request.arms:
        return order
    cells_of: dict[str, list[str]] = {arm: [arm] for arm in order}
    for arm, variant in images.select("arm", "variant").unique().iter_rows():
        prefix = BASELINE if arm.startswith(BASELINE) else ""
        cells_of.setdefault(prefix + variant, []).append(arm)
    chosen: set[str] = set()
    for name in request.arms:
        if name not in cells_of:
            raise UnknownNameError("arm", name, cells_of, "--arms")
        chosen.update(cells_of[name])
    return [arm for arm in order if arm in chosen]


def _references(
    run: Run, images: pl.DataFrame, arms: list[str], request: StudyRequest
) -> tuple[list[str], dict[str, str]]:
    """The arms without the reference's own, and image id -> image id of its reference."""
    families = {run.families[variant] for variant in images.filter(pl.col("arm").is_in(arms))["variant"]}
    if len(families) > 1 or images["folder"].n_unique() > 1:
        raise UsageError(
            f"--reference: the arms belong to several models ({', '.join(sorted(families))}), and a reference is the "
            "longest run of the same model: choose --arms of one model, or ask for --preference"
        )
    reference_of = references(images, run.suite)
    own = {row["arm"] for row in images.iter_rows(named=True) if reference_of.get(row["image_id"]) == row["image_id"]}
    if named := sorted(own & set(request.arms)):
        raise UsageError(f"--arms {named[0]}: it is the reference itself: leave it out, or ask for --preference")
    return [arm for arm in arms if arm not in own], reference_of


def _shown(run: Run, images: pl.DataFrame, arms: list[str], request: StudyRequest) -> list[tuple[str, int]]:
    """(prompt, seed) for which every arm has a picture, one seed per prompt, in the order of the run."""
    complete = (
        images.filter(pl.col("arm").is_in(arms))
        .group_by("prompt_id", "seed")
        .agg(pl.col("arm").n_unique())
        .filter(pl.col("arm") == len(arms))
        .sort("prompt_id", "seed")
        .group_by("prompt_id", maintain_order=True)
        .agg(pl.col("seed").first())
    )
    seeds = dict(complete.iter_rows())
    shown = [(prompt.prompt_id, seeds[prompt.prompt_id]) for prompt in run.prompt_set if prompt.prompt_id in seeds]
    if not shown:
        raise UsageError(f"{run.path}: no prompt and seed has an image of every arm: choose other --arms")
    if request.prompts is not None and not 1 <= request.prompts <= len(shown):
        raise UsageError(f"--limit {request.prompts}: give 1 to {len(shown)}, the number of prompts with all images")
    return shown[: request.prompts]


def _sources(
    images: pl.DataFrame, arms: list[str], shown: list[tuple[str, int]], reference_of: dict[str, str]
) -> list[_Source]:
    rows = {(row["arm"], row["prompt_id"], row["seed"]): row for row in images.iter_rows(named=True)}
    by_id = {row["image_id"]: row for row in rows.values()}
    sources = []
    for prompt, seed in shown:
        sources += [_source(rows[arm, prompt, seed], arm) for arm in arms]
        if reference_of:
            sources.append(_source(by_id[reference_of[rows[arms[0], prompt, seed]["image_id"]]], None))
    return sources


def _source(row: dict[str, Any], arm: str | None) -> _Source:
    """Read a picture of a run; raises PictureError if it is not the one that was measured."""
    folder = Path(row["folder"])
    pixels = read_picture(folder, row["file"], row["sha256"])
    with open_inside(folder, row["file"]) as file:
        content = file.read()
    return _Source(picture=_picture(content, pixels, arm, row["prompt_id"], str(row["seed"])), content=content)


def _picture(content: bytes, pixels: Images, arm: str | None, prompt: str, seed: str) -> Picture:
    digest = hashlib.sha256(content).hexdigest()
    return Picture(
        picture_id="",
        arm=arm,
        prompt_id=prompt,
        seed=seed,
        file=f"{PICTURES}/{digest[:32]}.png",
        sha256=digest,
        pixels_sha256=pixel_digest(pixels),
        width_px=pixels.shape[1],
        height_px=pixels.shape[0],
    )


def _noise(sources: Sequence[_Source], prompt: str, seed: int) -> list[_Source]:
    """Pictures of coloured noise, as large as the first picture."""
    from PIL import Image

    size = sources[0].picture
    chance = np.random.default_rng(seed)
    made = []
    for number in range(_NOISE_PICTURES):
        shape = (-(-size.height_px // _NOISE_BLOCK), -(-size.width_px // _NOISE_BLOCK), 3)
        blocks = chance.integers(0, 256, shape, dtype=np.uint8)
        pixels = blocks.repeat(_NOISE_BLOCK, 0).repeat(_NOISE_BLOCK, 1)[: size.height_px, : size.width_px]
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        made.append(_Source(picture=_picture(buffer.getvalue(), pixels, NOISE, prompt, str(number)),
                            content=buffer.getvalue()))  # fmt: skip
    return made


def _shuffled(sources: list[_Source], seed: int) -> list[_Source]:
    """Sources in random order, so that the number of a picture does not disclose its arm."""
    return [sources[i] for i in np.random.default_rng(seed).permutation(len(sources))]


def _stock(study: Study, run: Run, arms: list[str], shown: list[tuple[str, int]]) -> design.Stock:
    by_key = {(p.prompt_id, p.arm): p for p in study.pictures if p.arm is not None and p.arm != NOISE}
    steps = dict(run.images.group_by("cell_id").agg(pl.col("steps").mean()).iter_rows())
    return design.Stock(
        shown=[[by_key[prompt, arm] for arm in arms] for prompt, _ in shown],
        noise=[picture for picture in study.pictures if picture.arm == NOISE],
        best=max(range(len(arms)), key=lambda i: (steps.get(arms[i].removeprefix(BASELINE)) or 0, -i)),
    )


def _write(study: Study, files: dict[str, bytes], out: Path) -> None:
    """Write a folder next to `out` and rename it, so that `out` is complete or does not exist."""
    from perjoule.people.page import write_page  # imports jinja2, which reading a study does not need

    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    temporary = out.absolute().parent / f".perjoule-{secrets.token_hex(8)}.tmp"
    try:
        for name, content in files.items():
            write_bytes(temporary / name, content)
        write_json(temporary / STUDY_FILE, as_object(study))
        write_page(study, temporary)
        temporary.rename(out)  # replaces an empty folder
    finally:
        if temporary.exists():
            shutil.rmtree(temporary)


def described(study: Study, folder: Path) -> NewStudy:
    """Return what `perjoule study new` prints."""
    trials = len(study.sessions[0])
    return NewStudy(
        study=str(folder),
        study_id=study.study_id,
        question=study.question,
        arms=study.arms,
        prompts=len(study.prompts),
        observers=study.planned.observers,
        trials_per_observer=trials,
        answers=study.planned.answers,
        minutes_per_observer=trials * SECONDS_PER_TRIAL / 60,
    )

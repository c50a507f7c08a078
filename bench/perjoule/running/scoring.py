"""Scores stored images: one score per image and metric, without a meter and without generating images.

Scores are appended to `scores.partial.jsonl` at once, so that an interrupted scoring can continue.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np

from perjoule.errors import DeviceLostError, PerjouleError, RunError, UsageError, missing_extra
from perjoule.files import append_lines, at_home, exists, mend, open_journal
from perjoule.protocols import Images, ImageSet, QualityMetric, SetMetric, SetOutcome, judges_images, judges_sets
from perjoule.quality import load_metric
from perjoule.quality.keeping import let_go
from perjoule.running.failures import failure_of, free_memory
from perjoule.runs.directory import Run
from perjoule.runs.pictures import PictureError, read_picture
from perjoule.runs.references import references
from perjoule.types import MetricSpec, Prompt, Score, SetScore, Suite
from perjoule.weights.digests import digest_file

PARTIAL = "scores.partial.jsonl"
REFUSED = "image refused"
_PART = 256  # images between two progress updates; takes minutes with a slow metric
_REHEARSAL_PX = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class RemainingWork:
    """Remaining work for one metric.

    Attributes:
        metric: The metric.
        spec: Its spec.
        key: Digest of the metric's spec and options; scores with another key are ignored.
        stored: Scores from an interrupted scoring.
        positions: Remaining positions in the image set; images that share a reference are adjacent.
    """

    metric: QualityMetric
    spec: MetricSpec
    key: str
    stored: tuple[Score, ...]
    positions: tuple[int, ...]


def open_work(run: Run, images: ImageSet, metrics: Sequence[QualityMetric]) -> list[RemainingWork]:
    """Return the remaining work for each metric, and the scores of an interrupted scoring.

    Raises:
        UsageError: If a metric's weights could not be downloaded.
    """
    rows = mend(run.path / PARTIAL, skip_damaged=True)  # damaged rows are scored again
    order = _by_reference(images)
    work = []
    for metric in metrics:
        spec = metric.spec
        options = run.suite.metrics.options.get(spec.name, {})
        content = json.dumps([asdict(spec), options, _digests(options)], sort_keys=True, default=str)
        key = hashlib.sha256(content.encode()).hexdigest()[:16]
        known = {
            row.get("image_id"): row
            for row in rows
            if row.get("key") == key and row.keys() >= {"value", "reason_unscored"}
        }
        stored = [
            Score(image_id=i, metric=spec.name, **{name: known[i][name] for name in ("value", "reason_unscored")})
            for i in images.image_ids
            if i in known
        ]
        positions = tuple(i for i in order if images.image_ids[i] not in known)
        work.append(RemainingWork(metric=metric, spec=spec, key=key, stored=tuple(stored), positions=positions))
    return work


def _digests(options: Mapping[str, object]) -> dict[str, str]:
    """Return the SHA-256 of files named in a metric's options, because their content may change."""
    named = {key: at_home(value) for key, value in options.items() if isinstance(value, str)}
    return {key: digest_file(file) for key, file in named.items() if exists(file) and file.is_file()}


def score_images(
    run: Run, images: ImageSet, work: Iterable[RemainingWork], on_progress: Callable[[str, int], None]
) -> list[Score]:
    """Do the remaining work for every metric; the result includes the scores of an interrupted scoring.

    If a metric raises, only its images are unscored, with the reason. An image that differs from the measured one is
    unscored too.

    Args:
        run: The run, which stores the scores.
        images: Images of the run.
        work: Result of `open_work`.
        on_progress: Called with a metric's name and the number of images just done.
    """
    scores: list[Score] = []
    faults = PictureFaults(images)
    with open_journal(run.path / PARTIAL) as file:
        for remaining in work:
            scores += remaining.stored
            advance = partial(on_progress, remaining.spec.name)
            failed: str | None = None
            for part in _parts(remaining.positions):
                bad = faults.among(part, with_references=remaining.spec.needs_reference)
                scores += [
                    Score(image_id=images.image_ids[i], metric=remaining.spec.name, value=None, reason_unscored=bad[i])
                    for i in bad
                ]
                if bad:
                    advance(len(bad))
                readable = subset(images, [i for i in part if i not in bad])
                if not readable.image_ids:
                    continue
                if failed is None:
                    try:
                        new_scores = remaining.metric.score(readable, advance)
                    except Exception as error:
                        failed = _failed(error, run)
                    else:
                        scores += new_scores
                        append_lines(file, [{"key": remaining.key, **asdict(score)} for score in new_scores])
                        continue
                scores += [
                    Score(image_id=i, metric=remaining.spec.name, value=None, reason_unscored=failed)
                    for i in readable.image_ids
                ]
    return scores


def score_sets(
    run: Run, images: ImageSet, metrics: Sequence[SetMetric], on_progress: Callable[[str, int], None]
) -> list[SetScore]:
    """Score the images of every cell as a set. Raises UsageError if weights or a reference are not available."""
    cells: dict[str, list[int]] = {}
    cell_of = dict(zip(run.images["image_id"], run.images["cell_id"], strict=True))
    for position, image_id in enumerate(images.image_ids):
        cells.setdefault(cell_of[image_id], []).append(position)
    set_scores = []
    faults = PictureFaults(images)
    for metric in metrics:
        name = metric.spec.name
        for cell_id, indices in cells.items():
            try:
                # a set with a replaced image is a different set
                if bad := faults.among(indices, with_references=metric.spec.needs_reference):
                    raise PictureError(next(iter(bad.values())))
                outcome = metric.score_set(images, indices, partial(on_progress, name))
            except Exception as error:
                outcome = SetOutcome(value=None, reason_unscored=_failed(error, run))
            set_scores.append(SetScore(cell_id=cell_id, metric=name, image_count=len(indices), **asdict(outcome)))
    return set_scores


class PictureFaults:
    """Images that cannot be scored because they differ from the measured ones; each is read once."""

    def __init__(self, images: ImageSet) -> None:
        self._images = images
        self._known: dict[str, str | None] = {}

    def among(self, positions: Sequence[int], *, with_references: bool) -> dict[int, str]:
        """Return the errors of images by position, and of their references if requested."""
        images, faults = self._images, {}
        for i in positions:
            reference = images.reference_ids[i] if with_references else None
            reason = self._fault(images.image_ids[i], partial(images.images, i))
            if reason is None and reference is not None:
                reason = self._fault(reference, partial(images.references, i))
            if reason is not None:
                faults[i] = reason
        return faults

    def _fault(self, image_id: str, read: Callable[[], Images]) -> str | None:
        if image_id not in self._known:
            try:
                read()
                self._known[image_id] = None
            except PictureError as error:
                self._known[image_id] = f"{REFUSED}: {error}"[:300]
        return self._known[image_id]


def forget_partial(run: Run) -> None:
    """Remove the partial scores, once the scores are in their table."""
    (run.path / PARTIAL).unlink(missing_ok=True)


def subset(images: ImageSet, positions: Sequence[int]) -> ImageSet:
    """Return some of the images, in the order of `positions`; distractors are still chosen from all prompts."""
    return replace(
        images,
        image_ids=[images.image_ids[i] for i in positions],
        prompts=[images.prompts[i] for i in positions],
        images=lambda index: images.images(positions[index]),
        reference_ids=[images.reference_ids[i] for i in positions],
        references=lambda index: images.references(positions[index]),
    )


def image_set(run: Run) -> ImageSet:
    """Return the images of a run with their prompts and references.

    The reference of an image is the longest run of the same family, prompt and seed: other models are not used, because
    a full-reference score across models only shows that the models differ.
    """
    frame = run.images
    if frame["file"].null_count():
        row = frame.filter(frame["file"].is_null())["image_id"][0]
        raise RunError(f"{run.path / 'images.parquet'}: image {row}: file is empty: restore the table from a copy")
    missing = [f for f in frame["file"] if not os.path.lexists(run.path / f)]
    if missing and len(missing) == len(frame):  # single ones are only unscored
        raise RunError(f"{run.path}: all {len(missing)} images are missing, the first is {missing[0]}")
    by_id = {prompt.prompt_id: prompt for prompt in run.prompt_set}
    reference_of = references(frame, run.suite)
    stored = dict(zip(frame["image_id"], zip(frame["file"], frame["sha256"], strict=True), strict=True))
    ids = frame["image_id"].to_list()
    reference_ids = [reference_of.get(i) for i in ids]

    def reference(index: int) -> Images:
        name = reference_ids[index]
        if name is None:
            raise LookupError(f"image {ids[index]} has no reference")
        return read_picture(run.path, *stored[name])

    return ImageSet(
        image_ids=ids,
        prompts=[by_id.get(p, Prompt(prompt_id=p, text="")) for p in frame["prompt_id"]],
        images=lambda index: read_picture(run.path, *stored[ids[index]]),
        reference_ids=reference_ids,
        references=reference,
        all_prompts=run.prompt_set,
    )


def _by_reference(images: ImageSet) -> list[int]:
    """Return positions sorted so that each reference is used in one part only, for metrics that cache references."""
    ids = images.image_ids
    return sorted(range(len(ids)), key=lambda i: (images.reference_ids[i] or "", images.prompts[i].prompt_id, ids[i]))


def rehearse(suite: Suite, metrics: Sequence[QualityMetric | SetMetric], where: str) -> None:
    """Score a test image with a copy of every metric that scores images, to check that its weights can be read.

    The copy is released afterwards: a metric's weights must not use memory of the device during the measurement.

    Args:
        suite: Suite of the metrics.
        metrics: Loaded metrics; only their specs are read, which finds their weights.
        where: File and key of their names, for messages.

    Raises:
        UsageError: If a metric's weights are not available or damaged, or it cannot score.
    """
    noise = np.random.default_rng(0).integers(0, 256, (_REHEARSAL_PX, _REHEARSAL_PX, 3), dtype=np.uint8)
    prompt = Prompt(prompt_id="rehearsal", text="a rehearsal")
    images = ImageSet(
        image_ids=["rehearsal"],
        prompts=[prompt],
        images=lambda _: noise.copy(),
        reference_ids=["rehearsal"],
        references=lambda _: noise.copy(),
        all_prompts=[prompt],
    )
    for metric in metrics:
        name = metric.spec.name
        if judges_sets(metric):
            continue
        try:
            copy = load_metric(name, dict(suite.metrics.options.get(name, {})), where)
            assert judges_images(copy)
            copy.score(images, lambda _: None)
            del copy
        except PerjouleError:
            raise
        except Exception as error:
            raise UsageError(
                f"{where}: {name!r} cannot score an image: {failure_of(error).reason}; nothing was measured. Repair or "
                "remove the metric (its weights are in the message, or in `perjoule list metrics`)"
            ) from error
        let_go()
        free_memory()


def _failed(error: Exception, run: Run) -> str:
    """Return the reason why images are unscored.

    Raises:
        PerjouleError: If the error is a message of ours and not about a picture, or a package is missing.
        DeviceLostError: If the next metric could not score either.
    """
    if isinstance(error, PerjouleError) and not isinstance(error, PictureError):
        raise error
    if isinstance(error, ImportError) and (needed := missing_extra(error)):
        raise UsageError(needed) from error
    failure = failure_of(error)
    if failure.kills_context:
        raise DeviceLostError(
            f"the GPU's context is dead ({failure.reason}): finished scores are kept; in a new process continue with: "
            f"perjoule score {run.path} && perjoule report {run.path}"
        )
    return failure.reason[:300]


def _parts(positions: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(positions), _PART):
        yield positions[start : start + _PART]

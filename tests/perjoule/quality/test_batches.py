from __future__ import annotations

import logging

import pytest

from perjoule.quality.batches import score_in_batches


def score(pictures, noise, judge, count=7, batch_size=4):
    done: list[int] = []
    scores = score_in_batches(pictures(noise(count, 8)).image_set(), "m", batch_size, judge, done.append)
    return scores, done


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_batch_that_does_not_fit_is_halved_with_a_note_and_every_image_is_scored_once(pictures, noise, error, caplog):
    sizes = []

    def judge(batch):
        sizes.append(len(batch))
        if len(batch) > 1:
            raise error
        return [float(i) for i in batch]

    with caplog.at_level(logging.WARNING, "perjoule"):
        scores, done = score(pictures, noise, judge)
    assert [s.value for s in scores] == [0, 1, 2, 3, 4, 5, 6]
    assert sizes == [4, 2, 1, 1, 1, 1, 1, 1, 1]
    assert done == [1] * 7
    assert "m: out of memory with 4 images at once: continuing with 2" in caplog.text
    assert "continuing with 1" in caplog.text


def test_an_image_that_does_not_fit_alone_has_a_reason(pictures, noise):
    def judge(batch):
        if 2 in batch:
            raise MemoryError
        return [1.0] * len(batch)

    scores, _ = score(pictures, noise, judge, count=5)
    assert [s.value for s in scores] == [1, 1, None, 1, 1]
    assert scores[2].reason_unscored == "out of memory even for a single image"


def test_other_errors_are_not_swallowed(pictures, noise):
    def judge(batch):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        score(pictures, noise, judge)


def test_what_is_not_finite_has_a_reason(pictures, noise):
    scores, _ = score(pictures, noise, lambda batch: [float("nan"), float("inf"), "too dark", 0.5], count=4)
    assert [s.value for s in scores] == [None, None, None, 0.5]
    assert [s.reason_unscored for s in scores] == ["the value of m is nan", "the value of m is inf", "too dark", None]

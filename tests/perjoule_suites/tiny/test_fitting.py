from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, nn

from perjoule.files import read_json_lines
from perjoule_suites.tiny.fitting import Peers, Recipe, fit

pytestmark = pytest.mark.slow

RECIPE = Recipe(name="line", steps=60, learning_rate=0.05, warmup_steps=5, ema_decay=0.9)


class CutOffError(Exception):
    pass


def train_line(folder: Path, *, peers: Peers | None = None, cut_at: int | None = None) -> torch.Tensor:
    torch.manual_seed(1)
    line = nn.Linear(3, 1)

    def loss_of(rng: np.random.Generator, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        if step == cut_at:
            raise CutOffError
        x = torch.from_numpy(rng.normal(size=(8, 3)).astype(np.float32))[peers.part(8) if peers else slice(None)]
        return (line(x)[:, 0] - x.sum(1)).square().mean(), {}

    fit(RECIPE, line, loss_of, folder, checkpoint_every_s=0, peers=peers)
    return line.weight.detach()


def test_a_training_that_was_cut_off_ends_where_one_that_was_not_does(tmp_path: Path) -> None:
    whole = train_line(tmp_path / "whole")
    with pytest.raises(CutOffError):
        train_line(tmp_path / "cut", cut_at=23)
    assert torch.equal(whole, train_line(tmp_path / "cut"))
    assert (tmp_path / "cut" / "line.jsonl").read_text().count('"step"') >= 1
    # and what it learnt is the sum it was shown
    assert torch.allclose(whole, torch.ones(1, 3), atol=0.1)


def test_the_learning_rate_restarts_at_its_peak(tmp_path: Path) -> None:
    recipe = Recipe(name="line", steps=300, learning_rate=0.04, warmup_steps=0, restarts=(200,))
    line = nn.Linear(1, 1)
    fit(recipe, line, lambda rng, step: (line(torch.ones(1, 1)).sum(), {}), tmp_path)
    rates = {row["step"]: row["lr"] for row in read_json_lines(tmp_path / "line.jsonl")}
    # logged rates are those of the step before; the middle of a cosine is half of its height
    assert rates[50] > rates[100] > rates[150] > rates[200]
    assert rates[100] == pytest.approx(0.04 * 0.51, rel=0.05)
    assert rates[200] == pytest.approx(0.04 * 0.02, rel=0.02)
    assert rates[250] == pytest.approx(0.04 * 0.51, rel=0.05)
    assert rates[300] == pytest.approx(0.04 * 0.02, rel=0.02)


def join(folder: Path, meeting: str, rank: int) -> torch.Tensor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
        try:
            return train_line(folder, peers=Peers(rank, 2))
        finally:
            distributed.destroy_process_group()


def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    other = multiprocessing.get_context("spawn").Process(target=join, args=(tmp_path / "b", str(tmp_path / "meet"), 1))
    other.start()
    together = join(tmp_path / "a", str(tmp_path / "meet"), 0)
    other.join(60)
    assert other.exitcode == 0
    assert torch.allclose(together, train_line(tmp_path / "c"), atol=1e-5)
    assert (tmp_path / "a" / "line.pt").exists()
    assert not (tmp_path / "b" / "line.pt").exists()

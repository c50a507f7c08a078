"""How well simulated observers of known JOD are scaled: `python -m tests.benchmarks.people.recovery OUT.jsonl`.

8 arms from −1.5 to +1.5 JOD, 24 prompts, 15 observers with 80 answers each. Rows are appended one study at a time, and
a second call continues. `--summary` prints the figures.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from perjoule.people.choosing import gain_at
from perjoule.people.records import Screening
from perjoule.people.scaling import fit
from perjoule.people.thurstone import Array, log_slope, scores
from tests.support import observers

WORLDS = {"careless 10 %": 0.1, "careless 30 %": 0.3, "careless 0 %": 0.0}
BUDGETS = (150, 300, 450, 600, 750, 900)
SPREADS = (1.5, 3.0, 4.0)
_AHEAD = 5


def recovered(share: float, seed: int) -> dict[str, Any]:
    """One study: errors, coverage, and who was excluded."""
    chance = np.random.default_rng(seed)
    truth = observers.world(chance, careless=share)
    result = fit(observers.choices(truth, chance, 80), Screening(), resamples=1_000)
    error = result.jod - truth.jod
    estimates = [result.estimate(row) for row in np.eye(len(error))]
    covered = [e.low <= value <= e.high for e, value in zip(estimates, truth.jod, strict=True)]
    excluded = {one.observer for one in result.excluded}
    careless = {f"o{i}" for i in np.flatnonzero(truth.careless)}
    order = np.argsort(truth.jod)
    return {
        "rms": float(np.sqrt((error**2).mean())),
        "order": bool((np.argsort(result.jod) == order).all()),
        "covered": float(np.mean(covered)),
        "errors": error[order].tolist(),
        "careless": len(careless),
        "found": len(excluded & careless),
        "honest": len(truth.careless) - len(careless),
        "lost": len(excluded - careless),
    }


def chosen(spread: float, seed: int, active: bool) -> dict[str, float]:
    """Root mean square error by number of answers, of pairs chosen actively or at random; all observers are honest.

    Pairs are chosen five at a time, as by `serve`: until they are answered they count as ties.
    """
    chance = np.random.default_rng(seed)
    truth = observers.world(chance, careless=0.0, spread=spread)
    arms = len(truth.jod)
    wins: Array = np.zeros((arms, arms))
    upper = np.triu_indices(arms, 1)
    errors, at = {}, np.zeros(arms)
    for count in range(_AHEAD, BUDGETS[-1] + 1, _AHEAD):
        expected, pairs = wins.copy(), []
        for _ in range(_AHEAD):
            place = int(chance.integers(len(upper[0])))
            if active:
                at = scores(expected[None], start=at)[0]
                gain = gain_at(expected, at)[upper]
                place = int(np.argmax(gain * (1 + 0.02 * chance.random(len(gain)))))
            pairs.append((int(upper[0][place]), int(upper[1][place])))
            expected[pairs[-1]] += 0.5
            expected[pairs[-1][::-1]] += 0.5
        for a, b in pairs:
            none, one, other = (np.array([i]) for i in (0, a, b))
            won = truth.wins(none, none, one, other, chance.random(1))[0]
            wins[a, b] += won
            wins[b, a] += 1 - won
        if count in BUDGETS:
            errors[str(count)] = float(np.sqrt(((scores(wins[None])[0] - truth.jod) ** 2).mean()))
    return errors


def least_share(spread: float, arms: int = 8) -> float:
    """Share of the answers of random pairs that the best fixed choice needs, if the scores are known."""
    at = np.linspace(-spread, spread, arms)
    one, other = np.triu_indices(arms, 1)
    pairs = np.eye(arms)[one] - np.eye(arms)[other]
    added = log_slope(at[one] - at[other]) * log_slope(at[other] - at[one])
    weights = np.full(len(pairs), 1 / len(pairs))

    def covariance() -> Array:
        return np.asarray(np.linalg.pinv((pairs * (weights * added)[:, None]).T @ pairs), np.float64)

    even = np.trace(covariance())
    for _ in range(3_000):  # multiplicative algorithm for A-optimal designs
        weights = weights * np.sqrt(added * ((pairs @ covariance()) ** 2).sum(1))
        weights /= weights.sum()
    return float(np.trace(covariance()) / even)


def main() -> None:
    """Compute what is missing, or print a summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--studies", type=int, default=400)
    parser.add_argument("--active", type=int, default=40)
    parser.add_argument("--summary", action="store_true")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    if options.summary:
        summarise(rows)
        return
    known = {(row["world"], row["seed"]) for row in rows}
    with options.out.open("a") as file:

        def keep(world: str, seed: int, row: dict[str, Any]) -> None:
            file.write(json.dumps({"world": world, "seed": seed, **row}) + "\n")
            file.flush()

        for world, share in WORLDS.items():
            for seed in range(options.studies if share == 0.1 else options.studies // 4):
                if (world, seed) not in known:
                    keep(world, seed, recovered(share, seed))
        for seed in range(options.active):
            for spread in SPREADS:
                for active in (True, False):
                    world = f"{'active' if active else 'random'} ±{spread}"
                    if (world, seed) not in known:
                        keep(world, seed, chosen(spread, seed, active))


def summarise(rows: list[dict[str, Any]]) -> None:
    """Print the figures."""
    for world in WORLDS:
        mine = [row for row in rows if row["world"] == world]
        if not mine:
            continue
        careless, honest = sum(row["careless"] for row in mine), sum(row["honest"] for row in mine)
        bias = np.abs(np.mean([row["errors"] for row in mine], axis=0)).max()
        print(
            f"{world}: {len(mine)} studies, rms {np.sqrt(np.mean([row['rms'] ** 2 for row in mine])):.3f}, "
            f"rms above 0.15 in {np.mean([row['rms'] > 0.15 for row in mine]):.1%}, "
            f"order right in {np.mean([row['order'] for row in mine]):.1%}, "
            f"covered {np.mean([row['covered'] for row in mine]):.1%}, "
            f"recall {sum(row['found'] for row in mine) / careless if careless else np.nan:.1%}, "
            f"lost {sum(row['lost'] for row in mine) / honest:.2%}, largest bias of an arm {bias:.3f}"
        )
    for spread in SPREADS:
        curves = {}
        for name in ("active", "random"):
            mine = [row for row in rows if row["world"] == f"{name} ±{spread}"]
            if mine:
                curves[name] = [np.sqrt(np.mean([row[str(n)] ** 2 for row in mine])) for n in BUDGETS]
        if len(curves) < 2:
            continue
        needed = np.exp(np.interp(-np.array(curves["random"]), -np.array(curves["active"]), np.log(BUDGETS)))
        print(f"±{spread}: answers {BUDGETS}")
        for name, curve in curves.items():
            print(f"  {name} rms {np.round(curve, 3)}")
        print(f"  active needs {np.round(needed / np.array(BUDGETS), 2)} of the answers of random pairs")
        print(f"  the best fixed choice needs {least_share(spread):.2f}")


if __name__ == "__main__":
    main()

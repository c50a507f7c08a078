"""The prompt sets of the study of adaptive steps: captions to learn from, to tune on, and to report on.

`tiny-train` comes from the side of the world that the teacher was trained on. `tiny-dev` and `tiny-test` come from the
held-out tenth, share no scene with each other, and none with the scenes that decided anything while the family was
trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from perjoule_suites.tiny.evaluate import held_out_scenes
from perjoule_suites.tiny.scenes import Scene, caption, parse_caption, sample_scene

# name -> (held out of the teacher's training, seed, prompts of each category); there are few plain scenes of one thing
SETS: dict[str, tuple[bool, int, dict[str, int]]] = {
    "tiny-train": (False, 41, {"one, plain": 60, "one, patterned": 60, "two, plain": 60, "two, patterned": 60}),
    "tiny-dev": (True, 42, {"one, plain": 10, "one, patterned": 20, "two, plain": 20, "two, patterned": 20}),
    "tiny-test": (True, 43, {"one, plain": 20, "one, patterned": 100, "two, plain": 100, "two, patterned": 100}),
}
# (count, seed, things) of the samples that the model card's figures come from
_SEEN_SAMPLES = ((300, 99, None), (300, 99, 1), (300, 99, 2), (240, 31, None))
_TRIES = 10_000


def category(scene: Scene) -> str:
    """`one, plain` … `two, patterned`: how many things, and whether anything has a texture or the ground a pattern."""
    patterned = scene.ground_pattern != "plain" or any(thing.texture != "plain" for thing in scene.things)
    return f"{('one', 'two')[len(scene.things) - 1]}, {'patterned' if patterned else 'plain'}"


def write_prompt_sets(folder: Path) -> None:
    """Write the sets as TSV with the columns `prompt` and `category`."""
    taken = set(_seen_before(folder))
    for name, (held_out, seed, counts) in SETS.items():
        scenes = list(_draw(counts, held_out, seed, taken))
        taken |= {scene.key for scene in scenes}
        rows = sorted(f"{caption(scene)}\t{category(scene)}" for scene in scenes)
        (folder / f"{name}.tsv").write_text("prompt\tcategory\n" + "\n".join(rows) + "\n", encoding="utf-8")


def _draw(counts: dict[str, int], held_out: bool, seed: int, taken: set[str]) -> Iterator[Scene]:
    """Return the given number of scenes of each category, without those in `taken`."""
    rng = np.random.default_rng(seed)
    wanted, mine = dict(counts), set[str]()
    for things in (1, 2):
        for _ in range(_TRIES):
            scene = sample_scene(rng, held_out=held_out, things=things)
            if wanted[category(scene)] and scene.key not in taken | mine:
                wanted[category(scene)] -= 1
                mine.add(scene.key)
                yield scene


def _seen_before(folder: Path) -> Iterator[str]:
    for count, seed, things in _SEEN_SAMPLES:
        yield from (scene.key for scene in held_out_scenes(count, seed=seed, things=things))
    for line in (folder / "tiny-held-out.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        scene = parse_caption(line.split("\t")[0])
        if scene is not None:
            yield scene.key

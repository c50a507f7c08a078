"""The prompt sets of the tiny models, with equal shares of closed, half-open and open captions.

`tiny-train` comes from the side of the split that the models are trained on, `tiny-dev` from the development side, and
`tiny-test` and `tiny-held-out` from the test side. No two sets share a caption.
"""

from __future__ import annotations

from pathlib import Path

from perjoule.files import write_text
from perjoule_suites.tiny.world.captions import LEVELS, Split, draw_distinct

# name -> side of the split, seed, captions of each level
SETS: dict[str, tuple[Split, int, int]] = {
    "tiny-train": ("train", 41, 80),
    "tiny-dev": ("dev", 42, 24),
    "tiny-test": ("test", 43, 100),
    "tiny-held-out": ("test", 44, 100),
}


def prompt_sets() -> dict[str, str]:
    """Set name -> its table: tab-separated, with the columns `prompt` and `category`."""
    tables, taken = dict[str, str](), set[str]()
    for name, (split, seed, count) in SETS.items():
        rows = []
        for level in LEVELS:
            captions = draw_distinct(count, level, split, seed, without=taken)
            taken |= {caption.key for caption in captions}
            rows += [f"{caption.text()}\t{level}\n" for caption in captions]
        tables[name] = "prompt\tcategory\n" + "".join(sorted(rows))
    return tables


def write_prompt_sets(folder: Path) -> None:
    """Write each set as `NAME.tsv`."""
    for name, table in prompt_sets().items():
        write_text(folder / f"{name}.tsv", table)

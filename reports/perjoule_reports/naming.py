"""Names for readers: labels of variants and metrics from the suite, or derived from their names."""

from __future__ import annotations

from perjoule.suite.reading import is_imported
from perjoule.suite.smaller import planned_name, smaller_batch
from perjoule.types import Suite
from perjoule_reports.format import clean, plural, shorten

_LONGEST = 60
_ROLES = {"distilled": "distilled", "predicted": "adaptive", "control": "control"}
_METRICS = {
    "clip_text": "agreement with the prompt",
    "cvvdp": "visual quality",
    "dsim": "similarity to the longest run",
    "iclip": "similarity to the longest run",
    "lpips": "distance from the longest run",
    "lsnr": "image cleanness",
    "model-judge": "preference of a model",
    "people": "preference of people",
    "r_precision": "prompts recognised",
    "scene": "attributes drawn",
    "simulated-observers": "preference of simulated observers",
    "unstated-observers": "preference of observers not stated",
    "world": "facts drawn",
}


def variant_label(suite: Suite, name: str, role: str) -> str:
    """Return e.g. `the few-step student`, or by default the name with its role: `distilled sd-lcm`."""
    planned, batch = planned_name(name), smaller_batch(name)
    stated = next((variant.label for variant in suite.variants if variant.name == planned), "")
    if stated := clean(stated):
        smaller = f" with {plural(batch, 'image')} per call" if batch else ""
        return shorten(stated, _LONGEST) + smaller
    word = _ROLES.get(role, "")
    return f"{word} {clean(name)}" if word and word not in name else clean(name)


def metric_label(suite: Suite, name: str) -> str:
    """Return e.g. `attributes drawn`, or by default the name with blanks."""
    stated = clean(suite.metrics.labels.get(name, ""))
    known = "" if is_imported(suite) else _METRICS.get(name, "")  # a table may call anything by that name
    return shorten(stated, _LONGEST) or known or clean(name).replace("_", " ")


def capitalised(text: str, name: str) -> str:
    """Return a sentence with a capital letter, unless it begins with a name, e.g. `sd15 at 25 steps`."""
    return text if text.startswith(name) else text[:1].upper() + text[1:]

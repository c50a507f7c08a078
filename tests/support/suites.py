"""Suite files of the model that is built in, as text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


def suite_text(
    *variants: Mapping[str, Any],
    protocol: Mapping[str, Any],
    metrics: Sequence[str] = ("lsnr",),
    source: str = "prompts.txt",
) -> str:
    """A suite file, one key a line. Variants draw with `builtin:sd-tiny`, and LSNR is that of definition b."""

    def keys(values: Mapping[str, Any]) -> list[str]:
        # TOML writes texts, numbers and lists as JSON does
        return [f"{key} = {json.dumps(value)}" for key, value in values.items()]

    lines = [
        *keys({"name": "mine", "title": "Mine", "description": "Captions of the tiny world."}),
        *("[prompts]", *keys({"source": source})),
        *("[protocol]", *keys(protocol)),
        *("[metrics]", *keys({"primary": metrics[0], "names": list(metrics)})),
        *("[metrics.options.lsnr]", *keys({"definition": "b"})),
    ]
    for variant in variants:
        lines += ["[[variants]]", *keys({"name": "tiny", "model": "builtin:sd-tiny", **variant})]
    return "\n".join(lines) + "\n"

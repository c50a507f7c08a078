"""A process that loads variants for the tests, one JSON line in and one out; see `conftest.Worker`."""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from huggingface_hub.utils import _http
from pydantic import TypeAdapter

from perjoule.errors import PerjouleError
from perjoule.types import Variant
from perjoule_suites.diffusers_generator import load

warnings.simplefilter("ignore")
# the graph is traced for real and run by Python: the compiler of the default backend takes minutes
torch.compile = partial(torch.compile, backend="eager")
# the hub's client rests for seconds before it asks again
vars(_http)["time"] = SimpleNamespace(sleep=lambda seconds: None)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Load, draw two prompts, and tell what came out; or the error for people."""
    variant = TypeAdapter(Variant).validate_json(json.dumps(request["variant"]))
    try:
        with full_disk() if request.get("full_disk") else nullcontext():
            generator = load(variant, where="suite.toml: variants[0]")
    except PerjouleError as error:
        return {"error": str(error), "exit_code": error.exit_code}
    steps = variant.steps[0]
    drawn = generator.generate(["a red circle", "a blue star"], [1, 2], steps)
    return {
        "nfe": drawn.nfe_per_image,
        "pixels": hashlib.sha256(drawn.images.tobytes()).hexdigest(),
        "shape": list(drawn.images.shape),
        "phases": sorted(drawn.phases_s),
        "sources": generator.sources,
        "digest": generator.digest,
        "call": request.get("call") and _bare(variant, steps),
    }


@contextmanager
def full_disk() -> Iterator[None]:
    """Downloads are written to the device that is always full."""
    from huggingface_hub import file_download

    real = file_download.http_get

    def into_nowhere(url: str, temp_file: Any, **more: Any) -> None:
        with Path("/dev/full").open("wb") as full:
            real(url, full, **more)

    file_download.http_get = into_nowhere
    try:
        yield
    finally:
        file_download.http_get = real


def _bare(variant: Variant, steps: int) -> str:
    """The pixels of the code that `perjoule recommend` prints, run as it is but for seeds and prompts."""
    import numpy as np

    from perjoule.suite.diffusers_code import diffusers_code
    from perjoule.suite.seeding import image_seed

    code = diffusers_code(variant, steps).replace(".images[0]", ".images")
    code = code.replace("pipe(prompt", "pipe(prompt, generator=generators")
    prompts, seeds = ["a red circle", "a blue star"], [1, 2]
    names: dict[str, Any] = {
        "prompt": prompts,
        "generators": [
            torch.Generator("cpu").manual_seed(image_seed(p, s)) for p, s in zip(prompts, seeds, strict=True)
        ],
    }
    exec(code, names)
    pixels: Any = np.stack([np.asarray(picture) for picture in names["image"]])
    return hashlib.sha256(pixels.tobytes()).hexdigest()


for line in sys.stdin:
    print("\n" + json.dumps(answer(json.loads(line))), flush=True)

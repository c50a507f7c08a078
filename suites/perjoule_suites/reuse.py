"""Reuse between denoising steps: the package DeepCache, and the caches of diffusers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from perjoule.errors import SuiteError, UsageError
from perjoule.types import Cache

_CONFIGS = {
    "first-block": "FirstBlockCacheConfig",
    "pyramid-attention": "PyramidAttentionBroadcastConfig",
    "taylorseer": "TaylorSeerCacheConfig",
}


def enable_reuse(pipeline: Any, network: nn.Module, cache: Cache, where: str) -> None:
    """Enable a cache; `fresh` empties it before a pipeline call.

    Raises:
        SuiteError: It does not fit the model, or an argument is unknown.
        UsageError: A package is missing.
    """
    if cache.kind == "deepcache":
        _deepcache(pipeline, cache, where)
        return
    from diffusers import hooks

    if cache.kind == "first-block":
        blocks = getattr(network, "transformer_blocks", None)
        if blocks is None or getattr(blocks[-1], "context_pre_only", False):
            raise SuiteError(
                f"{where}.kind = 'first-block': only for transformers whose last block also returns the text, e.g. "
                f"FLUX; diffusers' cache does not support {type(network).__name__}"
            )
    kind = getattr(hooks, _CONFIGS[cache.kind])
    unknown = set(cache.args) - set(kind.__dataclass_fields__)
    if unknown:
        raise SuiteError(
            f"{where}.args.{min(unknown)}: {kind.__name__} has no such parameter: "
            f"{', '.join(kind.__dataclass_fields__)}"
        )
    # TOML has no tuples
    config = kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in cache.args.items()})
    if cache.kind == "pyramid-attention":
        clock = _TimestepWatch(network)
        config.current_timestep_callback = lambda: clock.timestep
        hooks.apply_pyramid_attention_broadcast(network, config)
    elif cache.kind == "first-block":
        hooks.apply_first_block_cache(network, config)
    else:
        hooks.apply_taylorseer_cache(network, config)


@contextmanager
def fresh(network: nn.Module) -> Iterator[None]:
    """Empty diffusers' caches around a pipeline call. DeepCache fills its own cache at the first step of each call."""
    from diffusers.models.cache_utils import CacheMixin

    registry = getattr(network, "_diffusers_hook", None)
    if registry is not None:
        registry.reset_stateful_hooks()
    # both halves of classifier-free guidance are in one batch, so there is one context. The mixin's method works for
    # any network, and pipelines whose networks lack the mixin do not set a context themselves.
    with CacheMixin.cache_context(network, "denoise"):
        yield


class _TimestepWatch:
    """Records the timestep of the current evaluation."""

    def __init__(self, network: nn.Module) -> None:
        self.timestep = 0
        network.register_forward_pre_hook(self._look, with_kwargs=True)

    def _look(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        timestep = args[1] if len(args) > 1 else kwargs["timestep"]
        self.timestep = int(timestep.flatten()[0])


def _deepcache(pipeline: Any, cache: Cache, where: str) -> None:
    try:
        from DeepCache import DeepCacheSDHelper
    except ImportError as error:
        raise UsageError(
            f"{where}.kind = 'deepcache': the package is missing: pip install 'perjoule[deepcache]'"
        ) from error
    if not hasattr(pipeline, "unet"):
        raise SuiteError(f"{where}.kind = 'deepcache': only for UNets; {type(pipeline).__name__} has none")
    known = {"cache_interval", "cache_branch_id"}
    if set(cache.args) - known:
        raise SuiteError(
            f"{where}.args.{min(set(cache.args) - known)}: DeepCache has no such parameter: {', '.join(sorted(known))}"
        )
    helper = DeepCacheSDHelper(pipe=pipeline)
    helper.set_params(**cache.args)
    helper.enable()

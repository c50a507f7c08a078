"""The profile of this machine's CPU: fitted once to small networks, then stored, so that joules stay the same.

The energy of a call is the CPU time of the shortest of several repeats, times codecarbon's power per core. Other load
of the machine makes repeats longer, never shorter, so the shortest is the least disturbed.
"""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING

from perjoule.errors import MeterError, install_command
from perjoule.meters.estimate import codecarbon_model
from perjoule.meters.identity import cpu_name
from perjoule.meters.known import recall, remember
from perjoule.work.counter import WorkCounter
from perjoule.work.fitting import fit_work
from perjoule.work.profile import WorkProfile

if TYPE_CHECKING:
    from torch import Tensor, nn

REPEATS = 12
# widths of the networks' levels, then (batch, side of the latent) of their calls: small ones are limited by the number
# of operators, large ones by products or by memory
WIDTHS = ((32, 64), (64, 128), (64, 96, 64), (128, 192))
CALLS = ((1, 16), (2, 8), (4, 16), (16, 16))
LEVEL_ERROR = 0.5  # of a power model: codecarbon assumes the thermal design power


def machine_profile() -> WorkProfile:
    """Return the stored profile of this CPU, or fit and store it, which takes some seconds.

    Raises:
        MeterError: codecarbon is missing or does not know the CPU, or the profile cannot be stored.
    """
    name = f"cpu-{hashlib.sha256(cpu_name().encode()).hexdigest()[:12]}"
    stored = recall(name, "work", WorkProfile)
    if stored is None:
        stored = fit_machine()
        remember(name, "work", stored)
    return stored


def fit_machine() -> WorkProfile:
    """Fit a profile to this CPU. Raises MeterError if codecarbon is missing or does not know it."""
    import torch

    model = codecarbon_model()
    works, energies = [], []
    with torch.no_grad():
        for widths in WIDTHS:
            network = _denoiser(widths)
            for batch, side in CALLS:
                inputs = (torch.zeros(batch, 4, side, side), torch.tensor(1), torch.zeros(batch, 16, 64))
                with WorkCounter(count_new=True) as counter:
                    network(*inputs)
                if counter.work is None:
                    raise MeterError(f"work: the networks of the profile were not counted: {counter.reason}")
                works.append(counter.work)
                cpu_s = min(_cpu_s(network, inputs) for _ in range(REPEATS))
                energies.append(cpu_s * model.tdp_w / model.cpu_count)
    fit = fit_work(works, energies)
    flops, moved, operators, calls = fit.coefficients
    return WorkProfile(
        name="machine",
        device="cpu",
        device_model=cpu_name(),
        dtypes=("float32",),
        j_per_flop=flops,
        j_per_byte=moved,
        j_per_operator=operators,
        j_per_call=calls,
        level_error=LEVEL_ERROR,
        shape_error=fit.held_out,
        origin=f"fitted to {fit.points} calls of small denoisers, CPU time x codecarbon {model.version}'s power",
    )


def _denoiser(widths: tuple[int, ...]) -> nn.Module:
    """Return a small denoiser with random weights, of the same operators as those of Stable Diffusion."""
    try:
        from diffusers import UNet2DConditionModel
    except ImportError as error:
        raise MeterError(f"work: the machine's profile needs diffusers; {install_command('diffusers')}") from error
    levels = len(widths) - 1
    network: nn.Module = UNet2DConditionModel(
        block_out_channels=widths,
        layers_per_block=1,
        cross_attention_dim=64,
        attention_head_dim=4,
        norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D",) * levels + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * levels,
    )
    return network.eval()


def _cpu_s(network: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    begun_s = time.process_time()
    network(*inputs)
    return time.process_time() - begun_s

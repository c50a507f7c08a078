from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from perjoule.types import Work, WorkPart
from perjoule.work.counter import WorkCounter, total_work
from perjoule.work.shapes import shapes_only


def network_and_work() -> Work:
    """Work of a small denoiser, of whatever tensors are made here."""
    from diffusers import UNet2DConditionModel

    network = UNet2DConditionModel(
        block_out_channels=(16, 32),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).eval()
    with torch.no_grad(), WorkCounter(count_new=True) as counter:
        network(torch.zeros(2, 4, 8, 8), torch.tensor(3), torch.zeros(2, 5, 16))
    assert counter.work is not None, counter.reason
    return counter.work


def test_shapes_alone_have_the_work_of_a_real_call() -> None:
    # on the device `meta`, torch chooses another attention, with other bytes, operators and data types
    with shapes_only("float32"):
        counted = network_and_work()
    assert counted == network_and_work()


def test_large_networks_need_no_memory() -> None:
    with shapes_only("float16"), WorkCounter(count_new=True) as counter:
        nn.Linear(10**6, 10**6)(torch.zeros(3, 10**6))
    assert counter.work is not None
    assert (counter.work.flops, counter.work.dtypes) == (2 * 3 * 10**12, ("float16",))


def test_torch_is_left_as_it_was() -> None:
    with pytest.raises(ZeroDivisionError), shapes_only("bfloat16"):
        _ = 1 / 0
    assert torch.zeros(1).dtype == torch.float32
    assert torch.zeros(1).sum().item() == 0.0  # has content


def test_a_total_is_that_of_all_calls() -> None:
    def work(name: str, flops: int) -> Work:
        part = WorkPart(name=name, calls=1, flops=flops, bytes_moved=10 * flops, operators=3)
        return Work(parts=(part,), devices=("cpu",), dtypes=("float32",))

    unet, text = work("UNet", 100), replace(work("Text", 7), dtypes=("float16",))
    total = total_work([(text, 2), (unet, 25), (unet, 1), (work("Never", 5), 0)])
    assert [(part.name, part.calls, part.flops) for part in total.parts] == [("UNet", 26, 2600), ("Text", 2, 14)]
    assert (total.bytes_moved, total.operators, total.calls) == (26140, 84, 28)
    assert (total.dtypes, total.devices) == (("float16", "float32"), ("cpu",))

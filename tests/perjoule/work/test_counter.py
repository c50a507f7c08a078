from __future__ import annotations

import sys
import threading
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from perjoule.types import Work
from perjoule.work.counter import WorkCounter


def counted(call: Any, *, count_new: bool = True) -> Work:
    with torch.no_grad(), WorkCounter(count_new=count_new) as counter:
        call()
    assert counter.work is not None, counter.reason
    return counter.work


def test_a_product_has_two_operations_per_multiply_add() -> None:
    layer, x = nn.Linear(3, 5), torch.zeros(7, 3)
    work = counted(lambda: layer(x))
    (part,) = work.parts
    assert (part.name, part.calls, part.flops, part.operators) == ("Linear", 1, 2 * 7 * 3 * 5, 1)
    assert part.bytes_moved == 4 * (7 * 3 + 3 * 5 + 5 + 7 * 5)
    assert (work.devices, work.dtypes, work.unknown) == (("cpu",), ("float32",), ())


def test_a_convolution_by_its_formula() -> None:
    layer, x = nn.Conv2d(3, 4, 3, padding=1), torch.zeros(2, 3, 8, 8)
    assert counted(lambda: layer(x)).flops == 2 * 2 * 8 * 8 * 3 * 4 * 9


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("two_ways", [False, True])
def test_a_recurrent_network_by_its_weights(kind: type[nn.LSTM] | type[nn.GRU], *, two_ways: bool) -> None:
    layer = kind(6, 4, num_layers=2, bidirectional=two_ways, batch_first=True).eval()
    work = counted(lambda: layer(torch.zeros(3, 5, 6)))
    weights = sum(one.numel() for name, one in layer.named_parameters() if name.startswith("weight"))
    assert work.flops == 2 * 3 * 5 * weights
    assert work.unknown == ()


def denoiser(**changes: Any) -> nn.Module:
    from diffusers import UNet2DConditionModel

    settings: dict[str, Any] = {
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "cross_attention_dim": 16,
        "attention_head_dim": 4,
        "norm_num_groups": 8,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    } | changes
    return UNet2DConditionModel(**settings).eval()


def inputs(batch: int = 2, side: int = 8) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.randn(batch, 4, side, side), torch.tensor(3), torch.randn(batch, 5, 16)


def test_a_denoiser_has_the_operations_that_torch_counts() -> None:
    # torch has no formula for the fused attention of CPUs, but for the products that the plain one consists of
    network, arguments = denoiser(), inputs()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as oracle:
        network(*arguments)
    assert counted(lambda: network(*arguments)).flops == oracle.get_total_flops()


@pytest.mark.parametrize("batch", [1, 3])
def test_counting_changes_no_bit_of_the_result(batch: int) -> None:
    network, arguments = denoiser(), inputs(batch)
    results = []
    with torch.no_grad():
        results.append(network(*arguments).sample)
        for _ in range(2):  # counted, then known
            with WorkCounter(count_new=True):
                results.append(network(*arguments).sample)
    assert all(torch.equal(results[0], one) for one in results)


def test_work_is_that_of_the_shapes() -> None:
    network = denoiser()
    one, four, large = (counted(lambda a=a: network(*inputs(*a))) for a in ((1, 8), (4, 8), (1, 16)))
    assert four.flops == 4 * one.flops
    assert four.operators == one.operators
    assert large.flops > 4 * one.flops  # attention grows faster than the area


def test_known_shapes_are_looked_up_and_others_are_counted_afterwards() -> None:
    network = denoiser()
    first = counted(lambda: network(*inputs()))
    assert counted(lambda: [network(*inputs()) for _ in range(3)], count_new=False).flops == 3 * first.flops
    with torch.no_grad(), WorkCounter(count_new=False) as counter:
        network(*inputs())
        network(*inputs(5))
        network(*inputs(5))
    assert counter.work is None
    assert counter.reason == "not counted: UNet2DConditionModel (2 calls)"
    counter.count_rest()
    assert counter.work == counted(lambda: [network(*inputs()), network(*inputs(5)), network(*inputs(5))])
    assert counter.reason is None


class Noisy(nn.Module):
    """Draws random numbers, and remembers how often it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.seen = nn.Linear(4, 4), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        return self.layer(x + torch.randn_like(x))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_counting_afterwards_changes_no_result(mode: Any) -> None:
    network, x = Noisy().eval(), torch.zeros(2, 4)
    torch.manual_seed(1)
    with mode():
        expected = [network(x), network(x)]
        torch.manual_seed(1)
        with WorkCounter(count_new=False) as counter:
            drawn = [network(x)]
        counter.count_rest()
        drawn.append(network(x))
        now = Noisy().eval()
        with WorkCounter(count_new=True) as other:
            now(x)
    assert all(torch.equal(a, b) for a, b in zip(drawn, expected, strict=True))
    assert counter.work == other.work
    assert counter.work is not None
    assert counter.work.calls == 1


def test_counting_afterwards_is_not_seen_by_other_counters() -> None:
    network, x = Noisy().eval(), torch.zeros(2, 4)
    with WorkCounter(count_new=False) as outer:
        with WorkCounter(count_new=False) as inner:
            network(x)
        inner.count_rest()
    outer.count_rest()
    assert inner.work == outer.work
    assert network.seen == 2  # the second counter looks it up


def test_a_network_that_is_trained_is_not_repeated() -> None:
    network = Noisy().train()
    with WorkCounter(count_new=False) as counter:
        network(torch.zeros(2, 4))
    counter.count_rest()
    assert counter.work is None
    assert counter.reason == "not counted: Noisy (1 calls)"
    assert network.seen == 1


def test_a_network_that_cannot_be_repeated_stays_uncounted() -> None:
    network = Noisy().eval()
    with WorkCounter(count_new=False) as counter:
        network(torch.zeros(2, 4))
    network.layer = nn.Linear(8, 8)
    counter.count_rest()
    assert counter.work is None
    assert counter.reason == "not counted: Noisy (1 calls)"


def test_the_order_of_a_scheduler_does_not_matter() -> None:
    # timesteps differ in value, not in shape
    network = denoiser()
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(4)
    x, _, text = inputs()
    counted(lambda: network(x, scheduler.timesteps[0], text))
    assert counted(lambda: [network(x, t, text) for t in scheduler.timesteps], count_new=False).calls == 4


def test_parts_are_separate() -> None:
    network, layer = denoiser(), nn.Linear(16, 16)
    x, t, text = inputs()
    work = counted(lambda: (layer(text), network(x, t, layer(text)), network(x, t, text)))
    assert [(part.name, part.calls) for part in work.parts] == [("UNet2DConditionModel", 2), ("Linear", 2)]


def test_a_changed_network_is_counted_again() -> None:
    network = nn.Sequential(nn.Linear(4, 4))
    x = torch.zeros(2, 4)
    one = counted(lambda: network(x))
    network.append(nn.Linear(4, 4))  # e.g. an adapter
    assert counted(lambda: network(x)).flops == 2 * one.flops


class Skips(nn.Module):
    """Computes in every second call only, like a cache between denoising steps."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.turn = 0

    def cached(self, x: torch.Tensor) -> torch.Tensor:
        self.turn += 1
        return self.layer(x) if self.turn % 2 else x


def test_a_network_with_a_cache_is_counted_in_every_call() -> None:
    network = Skips()
    network.forward = network.cached  # as DeepCache does
    x = torch.zeros(2, 4)
    assert counted(lambda: [network(x) for _ in range(4)]).flops == 2 * (2 * 2 * 4 * 4)
    with WorkCounter(count_new=False) as counter:
        network(x)
    assert counter.work is None


def test_an_argument_with_a_state_is_counted_in_every_call() -> None:
    class Memory:
        seen = 0

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor, memory: Memory) -> torch.Tensor:
            memory.seen += 1
            return self.layer(x) if memory.seen == 1 else x

    network, memory, x = Reader(), Memory(), torch.zeros(2, 4)
    assert counted(lambda: [network(x, memory) for _ in range(3)]).flops == 2 * 2 * 4 * 4


@torch.library.custom_op("perjoule_test::secret", mutates_args=())
def secret(x: torch.Tensor) -> torch.Tensor:
    return x @ x.T


def test_operators_without_a_formula_are_named() -> None:
    class Secret(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return secret(x)

    network = Secret()
    assert counted(lambda: network(torch.zeros(2, 4))).unknown == ("perjoule_test::secret",)


def test_nothing_was_called() -> None:
    with WorkCounter(count_new=True) as counter:
        torch.zeros(2, 2) @ torch.zeros(2, 2)
    assert counter.work is None
    assert counter.reason == "no network of torch was called in this process"


def test_counters_overlap_and_leave_torch_as_it_was() -> None:
    original, layer = nn.Module.__call__, nn.Linear(2, 2)
    one, other = WorkCounter(count_new=True), WorkCounter(count_new=True)
    one.__enter__()
    layer(torch.zeros(1, 2))
    other.__enter__()
    layer(torch.zeros(1, 2))
    one.__exit__(None, None, None)
    layer(torch.zeros(1, 2))
    other.__exit__(None, None, None)
    other.__exit__(None, None, None)
    assert nn.Module.__call__ is original
    assert [counter.work and counter.work.calls for counter in (one, other)] == [2, 2]


def test_a_failed_call_leaves_torch_as_it_was() -> None:
    original = nn.Module.__call__
    with pytest.raises(RuntimeError), WorkCounter(count_new=True):
        nn.Linear(2, 2)(torch.zeros(1, 3))
    assert nn.Module.__call__ is original


def test_threads_one_after_the_other_are_all_counted() -> None:
    layer = nn.Linear(2, 2)
    with WorkCounter(count_new=True) as counter:
        for _ in range(3):
            thread = threading.Thread(target=layer, args=(torch.zeros(1, 2),))
            thread.start()
            thread.join()
    assert counter.work is not None
    assert counter.work.calls == 3


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info >= (3, 15), reason="torch.compile needs an older Python")
def test_a_compiled_network_has_the_work_of_the_plain_one() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    x = torch.zeros(2, 4)
    plain = counted(lambda: network(x))
    compiled = torch.compile(network, backend="eager")
    compiled(x)
    assert counted(lambda: compiled(x)).flops == plain.flops
    assert counted(lambda: compiled(x), count_new=False).flops == plain.flops


def test_a_number_on_the_cpu_is_not_work_there() -> None:
    class Timed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4, device="meta")

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return self.layer(x * t)

    network = Timed()
    work = counted(lambda: network(torch.zeros(2, 4, device="meta"), torch.tensor(3.0)))
    assert work.devices == ("meta",)

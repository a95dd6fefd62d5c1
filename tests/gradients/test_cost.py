"""Cost of a step, counted instead of timed: floating-point operations, passes through an encoder, and memory.

Operations are those of torch's FlopCounterMode: products and convolutions, forward and backward. In units of the
forward pass F of the backbone on one modality, four modalities and all 15 cases, a plain mean loss takes 4 F forward
and 8 F backward, and a row for each case takes 4 F and 2 F for each of the 32 branches of the cases.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from tests.gradients.counted import Counted
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from anysubset.batches import as_observed
from anysubset.gradients import GMD
from anysubset.gradients.jacobian import Jacobian
from anysubset.gradients.stored import Stored
from anysubset.gradients.streaming import Streamed
from anysubset.models.sharing import DynamicSharing
from anysubset.models.unet import UNet
from anysubset.scenarios import Scenario, all_scenarios, draw_cases, scenario_name

NAMES = ("flair", "t1", "t1ce", "t2")
ALL = all_scenarios(NAMES)
# A way to fill `.grad` from the losses of a step.
Way = Callable[[DynamicSharing, dict[str, Tensor]], object]


class Encoder(nn.Module):
    """A private U-Net, as costly as the backbone."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.body = UNet([name], dimensions=2, width=0.25)
        self.out = nn.Conv2d(self.body.features, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.out(self.body(x, self.name))
        return answer


class Convolutions(nn.Module):
    """A small backbone, whose cost is counted quickly."""

    features = 4

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3), *(nn.Conv2d(4, 4, 3, padding=1) for _ in range(3)))

    def forward(self, x: Tensor, modality: str) -> Tensor:
        features: Tensor = self.layers(x)
        return features


def sharing(backbone: UNet | Convolutions, stems: Mapping[str, nn.Module] | None = None) -> DynamicSharing:
    return DynamicSharing(NAMES, backbone, nn.Conv2d(backbone.features, 2, 1), stems)


def unet(width: float = 0.25) -> UNet:
    return UNet(NAMES, dimensions=2, width=width)


def losses_of(network: DynamicSharing, cases: Sequence[Scenario], size: int) -> dict[str, Tensor]:
    needed = [name for name in NAMES if any(name in case for case in cases)]
    generator = torch.Generator().manual_seed(0)
    inputs = as_observed({name: torch.randn(1, 1, size, size, generator=generator) for name in needed})
    features = network.features(inputs)
    return {scenario_name(case): network.output_of_case(features, case)[0].square().mean() for case in cases}


def plain_mean(network: DynamicSharing, losses: dict[str, Tensor]) -> None:
    torch.stack(list(losses.values())).mean().backward()


def published(network: DynamicSharing, losses: dict[str, Tensor]) -> None:
    """Rows as in PCGrad-style code: one backward pass per case through the whole retained graph."""
    for loss in losses.values():
        network.zero_grad()
        loss.backward(retain_graph=True)


def decoupled(jacobian: Callable[..., Jacobian] = Stored) -> Way:
    return lambda network, losses: GMD(network.shared_parameters(), jacobian=jacobian).backward(losses)


def operations(network: DynamicSharing, cases: Sequence[Scenario], way: Way, size: int = 32) -> int:
    """FLOPs of one step, from the inputs to `.grad`."""
    with FlopCounterMode(display=False) as counter:
        way(network, losses_of(network, cases, size))
    network.zero_grad()
    return counter.get_total_flops()


# ---------------------------------------------------------------------------------------------------- operations


def test_all_fifteen_cases_cost_less_than_six_plain_steps():
    network = sharing(unet())
    assert len(ALL) == 15
    assert sum(map(len, ALL)) == 32
    plain = operations(network, ALL, plain_mean)
    # Sanity of the counter: 4 F and 8 F to 4 F and 64 F, 5.7 times, but for the input, which needs no gradient.
    assert operations(network, ALL, published) / plain == pytest.approx(68 / 12, rel=0.03)
    # The heads of the cases come on top, and the Gramian: k^2 P products whatever the size of the images, hence 64 x 64
    # here and below, still less than any that one would train on.
    plain = operations(network, ALL, plain_mean, size=64)
    assert operations(network, ALL, decoupled(), size=64) / plain <= 5.9


@pytest.mark.slow
def test_five_drawn_cases_cost_about_two_plain_steps():
    network = sharing(Convolutions())
    generator = torch.Generator().manual_seed(0)
    draws = [draw_cases(NAMES, 5, generator) for _ in range(25)]
    # Five of fifteen cases hold 5 * 32 / 15 modalities: 4 F and 2 * 10.7 F to 12 F.
    assert sum(len(case) for draw in draws for case in draw) / 25 == pytest.approx(32 / 3, rel=0.05)
    plain = sum(operations(network, draw, plain_mean, size=16) for draw in draws)
    ours = sum(operations(network, draw, decoupled(), size=16) for draw in draws)
    assert 1.9 <= ours / plain <= 2.2


@pytest.mark.slow
def test_costly_encoders_are_not_differentiated_once_per_case():
    network = sharing(unet(), {name: Encoder(name) for name in NAMES})
    light = operations(sharing(unet()), ALL, plain_mean)
    plain = operations(network, ALL, plain_mean)
    assert plain / light == pytest.approx(2, rel=0.05)
    # Through everything 15 times: 8 F and 128 F to 8 F and 16 F.
    assert operations(network, ALL, published) / plain == pytest.approx(136 / 24, rel=0.03)
    # The encoders once: 8 F, 64 F and 8 F to 24 F.
    plain = operations(network, ALL, plain_mean, size=64)
    assert operations(network, ALL, decoupled(), size=64) / plain <= 3.5


class CountedStem(nn.Conv2d):
    def __init__(self, name: str) -> None:
        super().__init__(1, 1, 1)
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        counted: Tensor = Counted.apply(super().forward(x), self.name)
        return counted


def test_an_encoder_is_differentiated_once_per_step_for_any_cases():
    network = sharing(Convolutions(), {name: CountedStem(name) for name in NAMES})
    for cases in (ALL, all_scenarios(NAMES, missing=1)):
        Counted.passes.clear()
        decoupled()(network, losses_of(network, cases, size=8))
        assert sorted(Counted.passes) == list(NAMES)
    Counted.passes.clear()
    published(network, losses_of(network, ALL, size=8))
    assert len(Counted.passes) == 32  # That is what it is compared with.


# --------------------------------------------------------------------------------------------------------- memory


class LiveBytes(TorchDispatchMode):
    """Maximum number of bytes of the storages that were allocated under it and exist at the same time.

    Each operation, of a forward or a backward pass, hands its outputs to this mode. A storage that was not seen before
    is counted from then on until its last tensor is gone, wherever that was held: views count once, what was there
    before counts never. What a kernel allocates and frees inside is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self.live = 0
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in tree_leaves((args, kwargs)):
            self.note(tensor, 0)
        outputs = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(outputs):
            self.note(tensor, 1)
        return outputs

    def note(self, value: object, new: int) -> None:
        """Count a new storage until it is freed."""
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            key, size = storage._cdata, new * storage.nbytes()
            if key not in self.seen:
                self.seen[key] = weakref.ref(storage, lambda _: self.forget(key, size))
                self.live += size
                self.peak = max(self.peak, self.live)

    def forget(self, key: int, size: int) -> None:
        """Subtract a storage whose last tensor was freed."""
        del self.seen[key]
        self.live -= size


def test_the_memory_counter_counts_live_storages_once():
    old = torch.zeros(1000)
    with LiveBytes() as memory:
        old.add_(1)
        assert memory.live == 0  # It was there before.
        first = torch.zeros(100)
        view = first[10:]
        assert memory.live == 400
        del first
        assert memory.live == 400  # The view holds it.
        del view
        assert memory.live == 0
        x = torch.ones(50, requires_grad=True)
        y = torch.exp(x).sum()
        assert memory.live == 4 * (50 + 50 + 1)  # exp keeps its output for the backward pass.
        y.backward()
        assert memory.live == 4 * (50 + 50 + 1) - 4 * 50 + 4 * 50  # In its place: `.grad`.
    assert memory.peak >= 400


def peak(network: DynamicSharing, way: Way) -> int:
    """Maximum number of bytes during one step, without the parameters."""
    with LiveBytes() as memory:
        way(network, losses_of(network, ALL, size=16))
    network.zero_grad()
    return memory.peak


@pytest.mark.parametrize(
    ("jacobian", "allowed"),
    # In floats a shared parameter: 1.2 for each of the 15 rows, or two gradients' worth of columns and one gradient.
    [(Stored, 1.2 * 15), (Streamed, 3.0)],
    ids=["stored", "streamed"],
)
def test_gmd_needs_only_the_memory_of_the_rows_beyond_a_plain_step(jacobian: Callable[..., Jacobian], allowed: float):
    network = sharing(unet(width=0.5))
    gradient = 4 * sum(values.numel() for values in network.shared_parameters())
    plain = peak(network, plain_mean)
    extra = (peak(network, decoupled(jacobian)) - plain) / gradient
    assert extra <= allowed
    # Stored cannot do with less than its rows; if it seems to, the measure is broken.
    assert extra >= (15 if jacobian is Stored else 0.5)

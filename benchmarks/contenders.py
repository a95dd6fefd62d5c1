"""Programs for the same training step: a plain backward pass, a literal implementation, other libraries, and ours.

Each of them starts with empty `.grad` and fills it with the mean of the projected gradients.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from problems import Problem
from torch import Tensor, nn

from anysubset import GMD, DynamicSharing
from anysubset.gradients.projection import random_orders
from anysubset.gradients.streaming import Streamed

Step = Callable[[], None]

ORDERS = 1  # Seed of the orders of projection, which are the same for every contender.


@dataclass(frozen=True)
class Contender:
    """One program for the step.

    make: returns the step as a function, for a copy of the network; the step starts with empty `.grad` and fills it.
    private: gradient of the parameters that the modalities do not share: of the losses `weighted` by the coefficients
        of the projection, or of their plain `mean`.
    itself: whether the order of projection of a case contains the case itself.
    projects: whether gradients are projected at all.
    """

    name: str
    make: Callable[[DynamicSharing, Problem], Step]
    private: str = "weighted"
    itself: bool = False
    projects: bool = True


def plain(network: DynamicSharing, problem: Problem) -> Step:
    """One backward pass of the mean loss, without projection."""

    def step() -> None:
        losses = problem.losses(network)
        torch.stack(list(losses.values())).mean().backward()

    return step


def published(network: DynamicSharing, problem: Problem) -> Step:
    """The usual implementation of Yu et al. (2020): one backward pass per case, then projection vector by vector."""
    shared = network.shared_parameters()
    private = others(network, shared)
    orders = orders_of(len(problem.cases))

    def step() -> None:
        losses = list(problem.losses(network).values())
        rows = []
        for loss in losses:
            for parameter in shared:
                parameter.grad = None
            loss.backward(retain_graph=True)
            rows.append(torch.cat([gradient_or_zero(parameter).flatten() for parameter in shared]))
        put(projected(rows, orders), shared)
        for parameter in private:
            if parameter.grad is not None:
                parameter.grad /= len(losses)

    return step


def projected(rows: Sequence[Tensor], orders: Sequence[Sequence[int]]) -> Tensor:
    """(P,): mean of the rows, each projected in turn onto the normal planes of the rows that it conflicts with."""
    copies = [row.clone() for row in rows]
    for copied, order in zip(copies, orders, strict=True):
        for j in order:
            along = copied.dot(rows[j])
            if along < 0:
                copied -= along * rows[j] / rows[j].norm() ** 2
    return torch.stack(copies).mean(dim=0)


def torchjd_autojac(network: DynamicSharing, problem: Problem, chunk: int | None = None) -> Step:
    """TorchJD: Jacobians of all parameters in `.jac`; PCGrad on shared ones, its coefficients on private ones."""
    from torchjd.aggregation import Constant, PCGrad
    from torchjd.autojac import backward, jac_to_grad

    shared = network.shared_parameters()
    private = others(network, shared)

    def step() -> None:
        losses = problem.losses(network)
        torch.manual_seed(ORDERS)
        # Its aggregators sum. Losses divided by k turn the sum into a mean and do not change the coefficients.
        backward([loss / len(losses) for loss in losses.values()], parallel_chunk_size=chunk)
        coefficients = jac_to_grad([p for p in shared if hasattr(p, "jac")], PCGrad())
        if private:
            jac_to_grad([p for p in private if hasattr(p, "jac")], Constant(coefficients))

    return step


def torchjd_one_by_one(network: DynamicSharing, problem: Problem) -> Step:
    """TorchJD without vmap: one backward pass per case."""
    return torchjd_autojac(network, problem, chunk=1)


def torchjd_autogram(network: DynamicSharing, problem: Problem) -> Step:
    """TorchJD: the Gramian, module by module without the Jacobian, then one backward pass of the weighted losses."""
    from torchjd.aggregation import PCGradWeighting
    from torchjd.autogram import Engine

    # The engine covers the parameters of modules that are called. Norm affines by modality are in modules that are not
    # called themselves, so the shared parameters are the same as for the other contenders.
    engine = Engine(network.backbone, network.head, batch_dim=None)
    weighting = PCGradWeighting()

    def step() -> None:
        losses = torch.stack(list(problem.losses(network).values()))
        torch.manual_seed(ORDERS)
        coefficients = weighting(engine.compute_gramian(losses))
        losses.backward(coefficients / len(coefficients))

    return step


def libmtl(network: DynamicSharing, problem: Problem) -> Step:
    """LibMTL: one backward pass per case into `.grad`, a matrix of rows, and a copy that is projected in place."""
    from LibMTL.weighting import PCGrad

    shared = network.shared_parameters()

    class Weighting(PCGrad):
        """The weighting with the two functions of an architecture that LibMTL's trainer would mix in."""

        def get_share_params(self) -> list[nn.Parameter]:
            """Shared parameters."""
            return shared

        def zero_grad_share_params(self) -> None:
            """Set `.grad` to zeros and not to None, because LibMTL writes into `.grad` afterwards."""
            for parameter in shared:
                if parameter.grad is not None:
                    parameter.grad.zero_()

    weighting = Weighting()
    weighting.task_num = len(problem.cases)
    weighting.device = problem.target.device
    weighting.rep_grad = False

    def step() -> None:
        losses = problem.losses(network)
        random.seed(ORDERS)
        weighting.backward([loss / len(losses) for loss in losses.values()])

    return step


def stored(network: DynamicSharing, problem: Problem) -> Step:
    """Ours, with the default engine."""
    gmd = GMD(network.shared_parameters())

    def step() -> None:
        gmd.generator.manual_seed(ORDERS)
        gmd.backward(problem.losses(network))

    return step


def batched(network: DynamicSharing, problem: Problem) -> Step:
    """Ours, with one batched backward pass of a modality's branch for all its cases."""
    gmd = GMD(network.shared_parameters())

    def step() -> None:
        gmd.generator.manual_seed(ORDERS)
        gmd.backward(problem.losses(network, lambda *inputs: gmd.batched(network.encode(*inputs))))

    return step


def recomputed(network: DynamicSharing, problem: Problem) -> Step:
    """Ours, with the branch of a modality recomputed in the backward pass."""
    gmd = GMD(network.shared_parameters())

    def step() -> None:
        gmd.generator.manual_seed(ORDERS)
        gmd.backward(problem.losses(network, lambda *inputs: gmd.recomputed(network.encode, *inputs)))

    return step


def streamed(network: DynamicSharing, problem: Problem) -> Step:
    """Ours, with at most two gradients' worth of the rows in memory."""
    gmd = GMD(network.shared_parameters(), jacobian=Streamed)

    def step() -> None:
        gmd.generator.manual_seed(ORDERS)
        gmd.backward(problem.losses(network))

    return step


CONTENDERS = [
    Contender("plain mean loss", plain, projects=False),
    Contender("published style", published, private="mean"),
    Contender("LibMTL", libmtl, private="mean", itself=True),
    Contender("TorchJD autojac", torchjd_autojac),
    Contender("TorchJD autojac, one by one", torchjd_one_by_one),
    Contender("TorchJD autogram", torchjd_autogram),
    Contender("ours, stored", stored),
    Contender("ours, batched", batched),
    Contender("ours, recomputed", recomputed),
    Contender("ours, streamed", streamed),
]


def orders_of(k: int, itself: bool = False) -> list[list[int]]:
    """Orders of projection that ours and TorchJD draw with seed ORDERS; with `itself`, those of LibMTL."""
    if not itself:
        return random_orders(k, torch.Generator().manual_seed(ORDERS))
    chance = random.Random(ORDERS)
    orders = [list(range(k)) for _ in range(k)]
    for order in orders:
        chance.shuffle(order)
    return orders


def others(network: nn.Module, shared: Iterable[Tensor]) -> list[nn.Parameter]:
    """The parameters that are not shared."""
    shared_ids = {id(parameter) for parameter in shared}
    return [parameter for parameter in network.parameters() if id(parameter) not in shared_ids]


def gradient_or_zero(parameter: Tensor) -> Tensor:
    """`.grad`, or zeros if the backward pass did not reach the parameter."""
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def put(vector: Tensor, parameters: Sequence[Tensor]) -> None:
    """Split a vector and write its parts to `.grad`."""
    for part, parameter in zip(vector.split([p.numel() for p in parameters]), parameters, strict=True):
        parameter.grad = part.view_as(parameter).clone()

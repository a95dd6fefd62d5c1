"""Programs that take the same step: a plain backward pass, a literal one, other libraries', and ours.

Each finds `.grad` empty and fills it with the mean of the projected gradients.
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

ORDERS = 1  # Seed of the orders of projection: every contender draws, or is given, the same.


@dataclass(frozen=True)
class Contender:
    """One way to take the step.

    make: from a copy of the network, something to call for a step; it finds `.grad` empty, and fills it.
    private: what parameters that the modalities do not share receive: the gradient of the `weighted` sum of the
        losses, as the coefficients of the projection have it, or of their plain `mean`.
    itself: whether a case is also met by its own gradient, in the order of projection.
    """

    name: str
    make: Callable[[DynamicSharing, Problem], Step]
    private: str = "weighted"
    itself: bool = False
    projects: bool = True


def plain(network: DynamicSharing, problem: Problem) -> Step:
    """One backward pass of the mean loss: nothing is projected."""

    def step() -> None:
        losses = problem.losses(network)
        torch.stack(list(losses.values())).mean().backward()

    return step


def published(network: DynamicSharing, problem: Problem) -> Step:
    """As Yu et al. (2020) is mostly programmed: a retained backward pass a case, then vector after vector."""
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
    """(P,): the mean of the rows, each projected off every original one that it conflicts with, in turn."""
    copies = [row.clone() for row in rows]
    for copied, order in zip(copies, orders, strict=True):
        for j in order:
            along = copied.dot(rows[j])
            if along < 0:
                copied -= along * rows[j] / rows[j].norm() ** 2
    return torch.stack(copies).mean(dim=0)


def torchjd_autojac(network: DynamicSharing, problem: Problem, chunk: int | None = None) -> Step:
    """TorchJD: Jacobians of all parameters in `.jac`, PCGrad on the shared ones, its coefficients on the others."""
    from torchjd.aggregation import Constant, PCGrad
    from torchjd.autojac import backward, jac_to_grad

    shared = network.shared_parameters()
    private = others(network, shared)

    def step() -> None:
        losses = problem.losses(network)
        torch.manual_seed(ORDERS)
        # Its aggregators sum: k times smaller losses make the sum a mean, and change no weight.
        backward([loss / len(losses) for loss in losses.values()], parallel_chunk_size=chunk)
        coefficients = jac_to_grad([p for p in shared if hasattr(p, "jac")], PCGrad())
        if private:
            jac_to_grad([p for p in private if hasattr(p, "jac")], Constant(coefficients))

    return step


def torchjd_one_by_one(network: DynamicSharing, problem: Problem) -> Step:
    """The same without vmap: a backward pass a case."""
    return torchjd_autojac(network, problem, chunk=1)


def torchjd_autogram(network: DynamicSharing, problem: Problem) -> Step:
    """TorchJD: the Gramian without the Jacobian, module by module, then a backward pass of the weighted losses."""
    from torchjd.aggregation import PCGradWeighting
    from torchjd.autogram import Engine

    # It measures the parameters of the modules that are called; norm affines keyed by modality lie in modules
    # that are not called themselves, so the same parameters count as shared as everywhere else.
    engine = Engine(network.backbone, network.head, batch_dim=None)
    weighting = PCGradWeighting()

    def step() -> None:
        losses = torch.stack(list(problem.losses(network).values()))
        torch.manual_seed(ORDERS)
        coefficients = weighting(engine.compute_gramian(losses))
        losses.backward(coefficients / len(coefficients))

    return step


def libmtl(network: DynamicSharing, problem: Problem) -> Step:
    """LibMTL: backward passes into `.grad`, a matrix of rows, and its clone, projected in place."""
    from LibMTL.weighting import PCGrad

    shared = network.shared_parameters()

    class Weighting(PCGrad):
        """Its trainer mixes the weighting with the architecture, which offers these."""

        def get_share_params(self) -> list[nn.Parameter]:
            """Shared parameters."""
            return shared

        def zero_grad_share_params(self) -> None:
            """Zeros, as `zero_grad` did when it was written: it writes into `.grad` afterwards."""
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
    """Ours, as it is by default."""
    gmd = GMD(network.shared_parameters())

    def step() -> None:
        gmd.generator.manual_seed(ORDERS)
        gmd.backward(problem.losses(network))

    return step


def batched(network: DynamicSharing, problem: Problem) -> Step:
    """Ours; the cases of a modality together through its branch."""
    gmd = GMD(network.shared_parameters())

    def step() -> None:
        gmd.generator.manual_seed(ORDERS)
        gmd.backward(problem.losses(network, lambda *given: gmd.batched(network.encode(*given))))

    return step


def recomputed(network: DynamicSharing, problem: Problem) -> Step:
    """Ours; a modality's branch is computed again when its turn comes."""
    gmd = GMD(network.shared_parameters())

    def step() -> None:
        gmd.generator.manual_seed(ORDERS)
        gmd.backward(problem.losses(network, lambda *given: gmd.recomputed(network.encode, *given)))

    return step


def streamed(network: DynamicSharing, problem: Problem) -> Step:
    """Ours; no more than two gradients' worth of the rows at once."""
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
    """What ours and TorchJD draw after seeding with ORDERS; with `itself`, what LibMTL does."""
    if not itself:
        return random_orders(k, torch.Generator().manual_seed(ORDERS))
    chance = random.Random(ORDERS)
    orders = [list(range(k)) for _ in range(k)]
    for order in orders:
        chance.shuffle(order)
    return orders


def others(network: nn.Module, shared: Iterable[Tensor]) -> list[nn.Parameter]:
    """The parameters that are not shared."""
    known = {id(parameter) for parameter in shared}
    return [parameter for parameter in network.parameters() if id(parameter) not in known]


def gradient_or_zero(parameter: Tensor) -> Tensor:
    """A parameter that was not reached has a gradient of zeros."""
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def put(vector: Tensor, parameters: Sequence[Tensor]) -> None:
    """The parts of a vector, into `.grad`."""
    for part, parameter in zip(vector.split([p.numel() for p in parameters]), parameters, strict=True):
        parameter.grad = part.view_as(parameter).clone()

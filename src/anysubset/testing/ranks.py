"""Check that the gradient of a step is the same in one process and shared by several (ranks).

Real processes on the CPU (gloo), started once for all methods that are checked.
"""

import pickle
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from anysubset.batches import Batch
from anysubset.errors import InputError
from anysubset.methods.method import Step
from anysubset.methods.update import UPDATES
from anysubset.system.children import Job, run_jobs
from anysubset.testing.subject import Subject, gradients_of, identical, train_steps
from anysubset.testing.toys import MODALITIES, part

RANKS = (2, 4)  # Numbers of processes that share the batch of a step.
PRELOAD = ("anysubset.testing", "torch._dynamo")  # The latter is imported by the first optimizer of a process.
LONGEST_WAIT = timedelta(minutes=10)  # Of a process for the others, which a busy machine starts late.


@dataclass(frozen=True)
class StepResult:
    """The first step of a stage with gradients, or what the stages without gradients fitted.

    totals: by objective, samples of all ranks that count. means: mean loss over them. gradients: by parameter; of
    stages without gradients the fitted parameters themselves.
    """

    totals: dict[str, int]
    means: dict[str, float]
    gradients: dict[str, Tensor | None]


# By the name of a subject and of a variant of it: the first step of each stage.
Results = dict[tuple[str, str], list[StepResult | None]]


def variants(subject: Subject) -> dict[str, dict[str, Any]]:
    """Options of a subject under test: its own, and if it has objectives beside its cases also other updates.

    Of those, as many as the method takes: each update, and decoupling of all cases. Cases alone are decoupled alike in
    every method.
    """
    possible: dict[str, dict[str, Any]] = {"own options": {}}
    method, _ = subject.create()
    steps = [Step(0, 0.0, stage.name, method.draw(torch.Generator())) for stage in method.stages]
    if all(objective.case for step in steps for objective in method.objectives(step).values()):
        return possible
    every: dict[str, dict[str, Any]] = {f"gradients={name}": {"gradients": name} for name in UPDATES}
    every.pop(f"gradients={subject.row.gradients}")
    every["gradients=gmd, cases=all"] = {"gradients": "gmd", "cases": "all"}
    for name, options in every.items():
        with suppress(InputError):
            subject.create(**options)
            possible[name] = options
    return possible


def without_volumes(subjects: Mapping[str, Subject]) -> dict[str, Subject]:
    """The subjects on other toys than volumes, if there are any: ranks share those alike, and volumes take long."""
    return {name: subject for name, subject in subjects.items() if name != "volumes"} or dict(subjects)


def shared_batch(subject: Subject) -> Batch:
    """An incomplete batch in which two ranks have two complete samples each, if the toy is not one of few samples."""
    complete = 3 if len(subject.toy.incomplete) > 3 else 1
    return subject.toy.batch((*subject.toy.incomplete, *[MODALITIES] * complete))


def shares(batch: Batch, world: int, unit: str) -> list[Batch]:
    """The samples of each rank: every n-th sample of the batch, or of the groups of the batch."""
    owners: Sequence[int] = range(len(batch.ids))
    if unit == "group":
        assert batch.groups is not None
        order = list(dict.fromkeys(batch.groups))
        owners = [order.index(group) for group in batch.groups]
    return [
        part(batch, [sample for sample, owner in enumerate(owners) if owner % world == rank]) for rank in range(world)
    ]


def first_steps(subject: Subject, options: Mapping[str, Any], batches: Sequence[Batch]) -> list[StepResult | None]:
    """The first step of each stage on the micro-batches of this rank; None for a step without any objective."""
    method, update = subject.create(**options)
    method.eval()  # Dropout draws other values for other parts of a batch.
    results: list[StepResult | None] = []
    for _, gradients in train_steps(method, update, batches, 1):
        if gradients is None:
            results.append(None)
            continue
        copies = {name: None if value is None else value.clone() for name, value in gradients_of(method).items()}
        results.append(StepResult(dict(gradients.totals), gradients.means(), copies))
    if any(stage.fit_steps for stage in method.stages):
        fitted = {name: value.clone() for name, value in method.named_parameters() if not value.requires_grad}
        results.append(StepResult({}, {}, dict(fitted)))
    return results


def run_rank(rank: int, worlds: Sequence[int], subjects: Mapping[str, Subject], folder: Path) -> None:
    """Take the steps of one rank in this process, in groups of several sizes, and write the results to files."""
    for world in sorted(worlds):
        if rank >= world:
            continue
        meeting = f"file://{folder / f'meeting-{world}'}"
        dist.init_process_group("gloo", meeting, LONGEST_WAIT, world, rank)
        try:
            results: Results = {}
            for name, subject in subjects.items():
                own = shares(shared_batch(subject), world, subject.row.method.unit)[rank]
                for variant, options in variants(subject).items():
                    results[name, variant] = first_steps(subject, options, [own])
            torch.save(results, folder / f"{world}-{rank}.pt")
        finally:
            dist.destroy_process_group()


def results_on_ranks(subjects: Mapping[str, Subject], worlds: Sequence[int] = RANKS) -> dict[int, list[Results]]:
    """The first steps of all subjects by number of processes and rank.

    Raises:
        AssertionError: if a process fails.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        jobs = {
            f"rank {rank}": Job(run_rank, (rank, tuple(worlds), dict(subjects), folder), folder / f"{rank}.log")
            for rank in range(max(worlds))
        }
        try:
            pickle.dumps(jobs)
        except (AttributeError, pickle.PicklingError) as error:
            message = f"Other processes cannot import the method; leave them out with ranks=(): {error}"
            raise AssertionError(message) from None
        ends = dict(run_jobs(jobs, len(jobs), 1, PRELOAD))
        failed = [f"{job}: {end.reason}" for job, end in ends.items() if end.code]
        assert not failed, f"A step that is shared by several processes fails on {'; '.join(failed)}"
        return {
            world: [torch.load(folder / f"{world}-{rank}.pt", weights_only=False) for rank in range(world)]
            for world in worlds
        }


def check_same_on_ranks(name: str, subject: Subject, by_world: Mapping[int, Sequence[Results]]) -> None:
    """Compare the steps of a subject on several ranks with those of one process.

    One process takes the whole batch at once, or, if an objective is a statistic of the batch, in micro-batches that
    are those of the ranks.
    """
    batch = shared_batch(subject)
    for variant, options in variants(subject).items():
        pooled = subject.create(**options)[0].pools_batch()
        of_batch = [] if pooled else first_steps(subject, options, [batch])
        for world, by_rank in by_world.items():
            expected = of_batch
            if pooled:
                expected = first_steps(subject, options, shares(batch, world, subject.row.method.unit))
            for stage, alone in enumerate(expected):
                results = [results[name, variant][stage] for results in by_rank]
                compare(alone, results, f"with {variant} on {world} ranks, stage {stage + 1}")


def compare(alone: StepResult | None, by_rank: Sequence[StepResult | None], where: str) -> None:
    """Raise AssertionError unless all ranks have the same bits, and the losses and gradients of one process."""
    first = by_rank[0]
    if alone is None or first is None:
        assert all(result is None for result in (alone, *by_rank)), f"A step is skipped by some ranks alone, {where}."
        return
    for result in by_rank:
        assert result is not None
        assert result.totals == alone.totals, f"Other samples count, {where}."
        assert identical(first.gradients, result.gradients), (
            f"The ranks have different gradients or fitted parameters, {where}."
        )
    for objective, mean in alone.means.items():
        close = abs(first.means[objective] - mean) <= 1e-9 + 1e-6 * abs(mean)
        assert close, f"The loss of {objective} changes, {where}."
    for parameter, gradient in alone.gradients.items():
        other = first.gradients[parameter]
        assert (gradient is None) == (other is None), f"{parameter} has a gradient on one rank, or on several, alone."
        if gradient is not None and other is not None:
            assert torch.allclose(gradient, other, rtol=1e-5, atol=1e-9), (
                f"The gradient or fitted value of {parameter} changes, {where}."
            )

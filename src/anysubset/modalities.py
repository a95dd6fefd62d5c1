"""The words that every file shares: scenarios, samplers of cases, and batches in which missing means not there.

A scenario is a non-empty set of present modalities, written as a tuple of names in the task's order. A modality
that a sample lacks is not filled, masked or flagged: `Observed.values` holds the samples that have it and no
others, and a modality that nobody in the batch has, has no key.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from anysubset.errors import InputError, unknown

Scenario = tuple[str, ...]
MOST = 16  # Modalities whose 65,535 scenarios may still be listed.
Value = TypeVar("Value")
CaseSampler = Callable[[torch.Generator | None], list[Scenario]]


# ---------------------------------------------------------------------------------------------- scenarios


def scenarios(modalities: Iterable[str], missing: int | None = None) -> list[Scenario]:
    """All 2^M - 1 scenarios, or those in which exactly `missing` modalities are absent.

    Fewest present first; within a size, a scenario comes before those that use a later modality, which is the
    column order of the paper's Table 2 for flair, t2, t1ce, t1.

    >>> scenarios(["a", "b", "c"])
    [('a',), ('b',), ('c',), ('a', 'b'), ('a', 'c'), ('b', 'c'), ('a', 'b', 'c')]
    >>> scenarios(["a", "b", "c"], missing=1)
    [('a', 'b'), ('a', 'c'), ('b', 'c')]
    """
    names = tuple(modalities)
    if missing is not None and not 0 <= missing < len(names):
        raise InputError(f"Of {len(names)} modalities, 0 to {len(names) - 1} can be missing, not {missing}.")
    if len(names) > MOST:
        raise InputError(f"{len(names)} modalities have too many scenarios to list; draw some, as with cases random=5.")
    sizes = range(1, len(names) + 1) if missing is None else [len(names) - missing]
    found = []
    for size in sizes:
        places = sorted(itertools.combinations(range(len(names)), size), key=lambda chosen: chosen[::-1])
        found += [tuple(names[place] for place in chosen) for chosen in places]
    return found


def in_order(some: Iterable[Scenario], modalities: Scenario) -> list[Scenario]:
    """Some scenarios, in the order in which `scenarios` lists all."""
    place = {name: index for index, name in enumerate(modalities)}
    return sorted(some, key=lambda scenario: (len(scenario), [place[name] for name in scenario[::-1]]))


def support(present: Iterable[Scenario], some: Iterable[Scenario]) -> dict[Scenario, int]:
    """How many samples are eligible for each of some scenarios, from what each sample has.

    >>> support([("a",), ("a", "b")], scenarios(["a", "b"]))
    {('a',): 2, ('b',): 1, ('a', 'b'): 1}
    """
    having = Counter(frozenset(names) for names in present)
    return {scenario: sum(count for names, count in having.items() if names.issuperset(scenario)) for scenario in some}


def grouped_by_missing(some: Iterable[Scenario], modalities: Scenario) -> dict[int, list[Scenario]]:
    """Some scenarios by how many modalities they lack; as they come, and so do the numbers.

    >>> grouped_by_missing(scenarios(["a", "b"]), ("a", "b"))
    {1: [('a',), ('b',)], 0: [('a', 'b')]}
    """
    groups: dict[int, list[Scenario]] = {}
    for scenario in some:
        groups.setdefault(len(modalities) - len(scenario), []).append(scenario)
    return groups


def scenario_name(scenario: Scenario) -> str:
    """The names joined by `+`, as they stand in `scores.csv`."""
    return "+".join(scenario)


def scenario_of(present: Iterable[str], modalities: Iterable[str]) -> Scenario:
    """The present names as a scenario, in the order of `modalities`.

    Raises:
        InputError: if none is present, or one is not among the modalities.
    """
    present, modalities = set(present), tuple(modalities)
    for name in sorted(present - set(modalities)):
        raise unknown("modality", name, modalities)
    if not present:
        raise InputError(f"No modality is present. Give at least one of: {', '.join(modalities)}.")
    return tuple(name for name in modalities if name in present)


# ----------------------------------------------------------------------------------------- samplers of cases


def case_sampler(modalities: Iterable[str], cases: str) -> CaseSampler:
    """The sampler that `cases` describes: `all`, `missing=R` or `random=K` (without replacement).

    The sampler takes a generator and returns the cases of one training step, in the order of `scenarios`.
    """
    names = tuple(modalities)
    kind, _, number = cases.partition("=")
    if kind in ("missing", "random") and not number.isdecimal():
        raise InputError(f"Cases {cases!r} needs a number, such as {kind}=1.")
    if cases == "all":
        every = scenarios(names)
        return lambda generator: every
    if kind == "missing":
        some = scenarios(names, missing=int(number))
        return lambda generator: some
    if kind == "random":
        count = int(number)
        if not 1 <= count < 2 ** len(names):
            raise InputError(f"{len(names)} modalities have 1 to {2 ** len(names) - 1} cases, not {count}.")
        return lambda generator: draw_cases(names, count, generator)
    raise unknown("cases", cases, ["all", "missing=R", "random=K"])


def draw_cases(modalities: Scenario, count: int, generator: torch.Generator | None) -> list[Scenario]:
    """`count` different scenarios, every one of the 2^M - 1 equally likely, for any number of modalities."""
    drawn: set[Scenario] = set()
    while len(drawn) < count:
        # Fair coins, one a modality; the empty set is drawn again, which keeps the others equally likely.
        coins = torch.randint(2, (len(modalities),), generator=generator).tolist()
        chosen = tuple(name for name, coin in zip(modalities, coins, strict=True) if coin)
        if chosen:
            drawn.add(chosen)
    return in_order(drawn, modalities)


# --------------------------------------------------------------------------------------------------- batches


@dataclass(frozen=True)
class Observed:
    """The samples of a batch that have one modality.

    values: (n, ...) for the n samples that have it.
    rows: (n,) int64 on the CPU, ascending: their places in the batch.
    valid: (n, time) bool for sequences: which steps are real; None elsewhere.
    """

    values: Tensor
    rows: Tensor
    valid: Tensor | None = None

    def __post_init__(self) -> None:
        if len(self.values) != len(self.rows):
            raise InputError(f"{len(self.values)} samples came with {len(self.rows)} places in the batch.")
        if not (self.rows.diff() > 0).all():
            raise InputError(f"Places in the batch must ascend, each once; these are {self.rows.tolist()}.")

    def to(self, device: torch.device | str) -> "Observed":
        """The same samples, with their values on a device."""
        valid = None if self.valid is None else self.valid.to(device)
        # The places stay on the CPU: they steer indexing and must never cost a synchronisation.
        return replace(self, values=self.values.to(device, non_blocking=True), valid=valid)


Inputs = Mapping[str, Observed | Tensor]


@dataclass(frozen=True)
class Batch:
    """inputs: by modality; one that no sample has, has no key. target: (batch, ...). ids: one a sample."""

    inputs: dict[str, Observed]
    target: Tensor
    ids: tuple[str, ...]

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch, on a device."""
        inputs = {name: observed.to(device) for name, observed in self.inputs.items()}
        return replace(self, inputs=inputs, target=self.target.to(device, non_blocking=True))


def collate(samples: Iterable[tuple[Mapping[str, Tensor], Tensor, str]]) -> Batch:
    """A batch of samples that need not have the same modalities; each is (inputs, target, id).

    Raises:
        InputError: if there is no sample, or one has no modality at all.
    """
    samples = list(samples)
    if not samples:
        raise InputError("A batch needs at least one sample.")
    inputs, targets, ids = zip(*samples, strict=True)
    for index, present in enumerate(inputs):
        if not present:
            raise InputError(f"Sample {ids[index]!r} has no modality.")
    observed = {}
    for name in dict.fromkeys(itertools.chain.from_iterable(inputs)):
        rows = [index for index, present in enumerate(inputs) if name in present]
        observed[name] = Observed(torch.stack([inputs[row][name] for row in rows]), torch.tensor(rows))
    return Batch(observed, torch.stack(targets), ids)


def as_observed(inputs: Inputs) -> dict[str, Observed]:
    """Plain tensors as what every sample of the batch has; what is observed already stays as it is.

    Raises:
        InputError: if plain tensors differ in their number of samples.
    """
    lengths = {name: len(given) for name, given in inputs.items() if not isinstance(given, Observed)}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise InputError(f"Plain tensors hold what every sample has, but their numbers of samples differ: {found}.")
    return {
        name: given if isinstance(given, Observed) else Observed(given, torch.arange(len(given)))
        for name, given in inputs.items()
    }


def keep(inputs: Mapping[str, Value], scenario: Iterable[str]) -> dict[str, Value]:
    """The inputs of a scenario, and nothing else."""
    return {name: inputs[name] for name in scenario}


def eligible(inputs: Mapping[str, Observed], scenario: Scenario) -> Tensor:
    """(n,) int64, ascending: the places of the samples that have every modality of the scenario."""
    if not scenario:
        raise InputError("A scenario has at least one modality.")
    places: set[int] | None = None
    for name in scenario:
        if name not in inputs:
            return torch.empty(0, dtype=torch.int64)
        have = set(inputs[name].rows.tolist())
        places = have if places is None else places & have
    return torch.tensor(sorted(places or ()), dtype=torch.int64)

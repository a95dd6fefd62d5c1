"""Scenarios, and samplers of the cases of a training step.

A scenario is a non-empty set of present modalities, written as a tuple of names in the task's order. A case is a
scenario whose loss is taken in a training step.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable

import torch

from anysubset.errors import InputError, unknown

Scenario = tuple[str, ...]
MOST = 16  # Modalities whose 65,535 scenarios may still be listed.
CaseSampler = Callable[[torch.Generator | None], list[Scenario]]


# ---------------------------------------------------------------------------------------------- scenarios


def all_scenarios(modalities: Iterable[str], missing: int | None = None) -> list[Scenario]:
    """All 2^M - 1 scenarios, or those in which exactly `missing` modalities are absent.

    Fewest present first; within a size, a scenario comes before those that use a later modality, which is the
    column order of the paper's Table 2 for flair, t2, t1ce, t1.

    >>> all_scenarios(["a", "b", "c"])
    [('a',), ('b',), ('c',), ('a', 'b'), ('a', 'c'), ('b', 'c'), ('a', 'b', 'c')]
    >>> all_scenarios(["a", "b", "c"], missing=1)
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

    >>> support([("a",), ("a", "b")], all_scenarios(["a", "b"]))
    {('a',): 2, ('b',): 1, ('a', 'b'): 1}
    """
    having = Counter(frozenset(names) for names in present)
    return {scenario: sum(count for names, count in having.items() if names.issuperset(scenario)) for scenario in some}


def grouped_by_missing(some: Iterable[Scenario], modalities: Scenario) -> dict[int, list[Scenario]]:
    """Some scenarios by how many modalities they lack; as they come, and so do the numbers.

    >>> grouped_by_missing(all_scenarios(["a", "b"]), ("a", "b"))
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
    """The sampler that `cases` describes: `all`, `full`, `missing=R` or `random=K` (without replacement).

    The sampler takes a generator and returns the cases of one training step, in the order of `scenarios`.
    """
    names = tuple(modalities)
    kind, _, number = cases.partition("=")
    if kind in ("missing", "random") and not number.isdecimal():
        raise InputError(f"Cases {cases!r} needs a number, such as {kind}=1.")
    if cases == "all":
        every = all_scenarios(names)
        return lambda generator: every
    if cases == "full":
        return lambda generator: [names]
    if kind == "missing":
        some = all_scenarios(names, missing=int(number))
        return lambda generator: some
    if kind == "random":
        count = int(number)
        if not 1 <= count < 2 ** len(names):
            raise InputError(f"{len(names)} modalities have 1 to {2 ** len(names) - 1} cases, not {count}.")
        return lambda generator: draw_cases(names, count, generator)
    raise unknown("cases", cases, ["all", "full", "missing=R", "random=K", *BY_SAMPLE])


def default_cases(modalities: Scenario) -> str:
    """All cases for up to four modalities, and the paper's five random ones for more."""
    return "all" if len(modalities) <= 4 else "random=5"


# How one scenario is drawn for each sample: every subset of what it has equally likely, or its size first.
BY_SAMPLE = ("sample", "sample=size")


def draw_scenario(present: Scenario, how: str, generator: torch.Generator) -> Scenario:
    """Draw a scenario for a sample from the modalities that it has.

    Args:
        present: what the sample has.
        how: one of `BY_SAMPLE`. Under "sample=size" the number of modalities is uniform from 1 to all.
        generator: the source of chance.
    """
    if how == "sample":
        return draw_cases(present, 1, generator)[0]
    size = int(torch.randint(1, len(present) + 1, (), generator=generator))
    chosen = set(torch.randperm(len(present), generator=generator)[:size].tolist())
    return tuple(modality for position, modality in enumerate(present) if position in chosen)


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

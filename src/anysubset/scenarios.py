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
MOST = 16  # Modalities whose scenarios can be listed: 65,535.
SCORED = 100  # Scenarios that are scored if there are more modalities.
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
        raise InputError(
            f"{len(names)} modalities have too many scenarios to list; draw a few, as with cases random=5."
        )
    sizes = range(1, len(names) + 1) if missing is None else [len(names) - missing]
    scenarios = []
    for size in sizes:
        combinations = sorted(itertools.combinations(range(len(names)), size), key=lambda indices: indices[::-1])
        scenarios += [tuple(names[index] for index in indices) for indices in combinations]
    return scenarios


def scored_scenarios(modalities: Iterable[str]) -> list[Scenario]:
    """The scenarios of a validation or evaluation: all, or `SCORED` of them with more than `MOST` modalities.

    These are each modality alone, all together, and others that are drawn with seed 0, so that every run has the same.

    >>> scored_scenarios("ab")
    [('a',), ('b',), ('a', 'b')]
    """
    names = tuple(modalities)
    if len(names) <= MOST:
        return all_scenarios(names)
    chosen = {names, *((name,) for name in names)}
    generator = torch.Generator().manual_seed(0)
    while len(chosen) < max(SCORED, 2 * len(names)):
        chosen |= set(draw_cases(names, 1, generator))
    return in_order(chosen, names)


def note_on_scenarios(modalities: Scenario) -> str | None:
    """A line that says which scenarios are scored; None if all are."""
    if len(modalities) <= MOST:
        return None
    count = len(scored_scenarios(modalities))
    return (
        f"note: {len(modalities)} modalities have {2 ** len(modalities) - 1:,} scenarios; {count} are scored: "
        "each modality alone, all together, and others drawn with seed 0, the same in every run"
    )


def in_order(scenarios: Iterable[Scenario], modalities: Scenario) -> list[Scenario]:
    """Sort scenarios into the order of `all_scenarios`."""
    index_of = {name: index for index, name in enumerate(modalities)}
    return sorted(scenarios, key=lambda scenario: (len(scenario), [index_of[name] for name in scenario[::-1]]))


def support(present: Iterable[Scenario], scenarios: Iterable[Scenario]) -> dict[Scenario, int]:
    """Number of samples that are eligible for each scenario, from the modalities of each sample.

    >>> support([("a",), ("a", "b")], all_scenarios(["a", "b"]))
    {('a',): 2, ('b',): 1, ('a', 'b'): 1}
    """
    counts = Counter(frozenset(names) for names in present)
    return {
        scenario: sum(count for names, count in counts.items() if names.issuperset(scenario)) for scenario in scenarios
    }


def grouped_by_missing(scenarios: Iterable[Scenario], modalities: Scenario) -> dict[int, list[Scenario]]:
    """Scenarios by number of missing modalities; numbers and scenarios in the order in which they first occur.

    >>> grouped_by_missing(all_scenarios(["a", "b"]), ("a", "b"))
    {1: [('a',), ('b',)], 0: [('a', 'b')]}
    """
    groups: dict[int, list[Scenario]] = {}
    for scenario in scenarios:
        groups.setdefault(len(modalities) - len(scenario), []).append(scenario)
    return groups


def scenario_name(scenario: Scenario) -> str:
    """Names joined by `+`, as in the column `scenario` of `scores.csv`."""
    return "+".join(scenario)


def scenario_of(present: Iterable[str], modalities: Iterable[str]) -> Scenario:
    """Make a scenario of the present modalities, in the order of `modalities`.

    Raises:
        InputError: if none is present, or one is not among `modalities`.
    """
    present, modalities = set(present), tuple(modalities)
    for name in sorted(present - set(modalities)):
        raise unknown("modality", name, modalities)
    if not present:
        raise InputError(f"No modality is present. Give at least one of: {', '.join(modalities)}.")
    return tuple(name for name in modalities if name in present)


# ----------------------------------------------------------------------------------------- samplers of cases


def case_sampler(modalities: Iterable[str], cases: str) -> CaseSampler:
    """Make the sampler that `cases` describes: `all`, `full`, `missing=R` or `random=K` (without replacement).

    The sampler takes a generator and returns the cases of one training step, in the order of `all_scenarios`.

    Raises:
        InputError: if `cases` is none of these, or its number is out of range.
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
        incomplete = all_scenarios(names, missing=int(number))
        return lambda generator: incomplete
    if kind == "random":
        count = int(number)
        if not 1 <= count < 2 ** len(names):
            raise InputError(f"{len(names)} modalities have 1 to {2 ** len(names) - 1} cases, not {count}.")
        return lambda generator: draw_cases(names, count, generator)
    raise unknown("cases", cases, ["all", "full", "missing=R", "random=K", *BY_SAMPLE])


def cases_in_words(cases: str) -> str:
    """The scenarios that occur in training with an option `cases`, as a phrase for tables.

    >>> cases_in_words("random=3"), cases_in_words("missing=1"), cases_in_words("sample=size")
    ('3 random scenarios per step', 'the scenarios that lack 1 modality', 'one random scenario per sample')
    """
    kind, _, number = cases.partition("=")
    if cases in BY_SAMPLE:
        return "one random scenario per sample"
    if kind == "random":
        return "one random scenario per step" if number == "1" else f"{number} random scenarios per step"
    if kind == "missing":
        return f"the scenarios that lack {number} {'modality' if number == '1' else 'modalities'}"
    return "the full scenario" if cases == "full" else "every scenario"


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
    """Draw `count` different scenarios; each of the 2^M - 1 is equally likely, for any number of modalities."""
    drawn: set[Scenario] = set()
    while len(drawn) < count:
        # One fair coin for each modality. Rejecting the empty set keeps the others equally likely.
        coins = torch.randint(2, (len(modalities),), generator=generator).tolist()
        scenario = tuple(name for name, coin in zip(modalities, coins, strict=True) if coin)
        if scenario:
            drawn.add(scenario)
    return in_order(drawn, modalities)

"""Folds of patients for cross-validation: groups are kept together, and folds are stratified.

Strata of patients, such as the modalities that they have, may be as small as one patient, which the splitters of
scikit-learn refuse or warn of. So groups are dealt to the folds in turn, stratum by stratum, like cards.
"""

import random
from collections.abc import Mapping

from anysubset.datasets.splits import Splits
from anysubset.errors import InputError


def draw_folds(
    strata: Mapping[str, str], count: int, groups: Mapping[str, str] | None = None, seed: int = 0
) -> list[Splits]:
    """Draw `count` splits into train, val and test, so that each sample is in exactly one test part.

    The validation part of a fold is the test part of the next. Without groups, the test parts of two folds differ by at
    most one sample, in all and in each stratum. With groups, that holds for the groups of each size.

    Args:
        strata: the stratum of each sample by id; ids keep this order.
        count: number of folds, 3 or more.
        groups: group by id; by default each sample is a group of its own.
        seed: of the draw.

    Raises:
        InputError: if there are fewer groups than folds.
    """
    members: dict[str, list[str]] = {}
    for sample in strata:
        members.setdefault(sample if groups is None else groups[sample], []).append(sample)
    if len(members) < count:
        kind = "patients" if groups is None else "groups of patients"
        raise InputError(f"{len(members)} {kind} with a label cannot make {count} folds.")
    shuffled = random.Random(seed).sample(sorted(members), len(members))

    def stratum_of(group: str) -> tuple[int, list[str]]:
        return -len(members[group]), sorted(strata[sample] for sample in members[group])

    dealt = sorted(shuffled, key=stratum_of)  # Large groups first; the order within a stratum stays random.
    fold_of = {sample: number % count for number, group in enumerate(dealt) for sample in members[group]}
    return [
        {
            "train": tuple(sample for sample in strata if fold_of[sample] not in (fold, (fold + 1) % count)),
            "val": tuple(sample for sample in strata if fold_of[sample] == (fold + 1) % count),
            "test": tuple(sample for sample in strata if fold_of[sample] == fold),
        }
        for fold in range(count)
    ]

"""Propose regions for the values of a label, where names of patients or files show whose convention they follow.

The conventions of BraTS contradict each other: 4 is enhancing tumour until 2021, the resection cavity in BraTS 2024 of
gliomas, and oedema in BraTS 2024 of children. Where it is unclear which one holds, every value is a region of its own.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from anysubset.volumes.spellings import BRATS

Regions = dict[str, list[int]]

VOID = 255
LEAST_ATLAS = 100  # Labels with such values name many structures, and 255 may be one of them.


@dataclass(frozen=True, eq=False)
class Convention:
    """Meaning of label values.

    name: data sets that follow it. values: what each value stands for. regions: the usual ones, outer regions first.
    """

    name: str
    values: str
    regions: Regions

    @property
    def all_values(self) -> set[int]:
        """Values that the regions have."""
        return set().union(*self.regions.values())

    @property
    def setting(self) -> str:
        """The setting `data.regions`, as YAML, and where it applies."""
        return f"{{{', '.join(f'{region}: {values}' for region, values in self.regions.items())}}} for {self.name}"


UNTIL_2016 = Convention(
    "BraTS 2012 to 2016",
    "1 necrosis, 2 oedema, 3 non-enhancing tumour, 4 enhancing tumour",
    {"WT": [1, 2, 3, 4], "TC": [1, 3, 4], "ET": [4]},
)
UNTIL_2021 = Convention(
    "BraTS 2017 to 2021",
    "1 necrosis and non-enhancing tumour, 2 oedema, 4 enhancing tumour",
    {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]},
)
SINCE_2023 = Convention(
    "BraTS 2023",
    "1 necrosis and non-enhancing tumour, 2 oedema, 3 enhancing tumour",
    {"WT": [1, 2, 3], "TC": [1, 3], "ET": [3]},
)
TREATED = Convention(
    "BraTS 2024 of gliomas after treatment",
    "1 non-enhancing core, 2 FLAIR hyperintensity, 3 enhancing tissue, 4 resection cavity",
    {"WT": [1, 2, 3], "TC": [1, 3], "ET": [3], "RC": [4]},
)
CHILDREN = Convention(
    "BraTS 2024 of children",
    "1 enhancing tumour, 2 non-enhancing tumour, 3 cyst, 4 oedema",
    {"WT": [1, 2, 3, 4], "TC": [1, 2, 3], "ET": [1]},
)
DECATHLON = Convention(
    "Medical Decathlon, Task01",
    "1 oedema, 2 non-enhancing tumour, 3 enhancing tumour",
    {"WT": [1, 2, 3], "TC": [2, 3], "ET": [3]},
)
CONVENTIONS = (UNTIL_2021, SINCE_2023, TREATED, CHILDREN, UNTIL_2016, DECATHLON)

# Beginnings of ids, and the conventions that these data sets follow, by the values that they have.
BY_ID = {
    r"brats_(2013|tcia)|VSD\.Brain|brats_?201[2-6]": (UNTIL_2016,),
    r"brats1[789]_|brats20_|brats2021_|UCSF-PDGM-|UPENN-GBM-": (UNTIL_2021,),
    r"BraTS-(GLI|MET)-\d": (SINCE_2023, TREATED),
    r"BraTS-(MEN|SSA|GoAT)-\d": (SINCE_2023,),
    # In 2023, 3 was enhancing tumour and 2 oedema, so the values show the year only where a 4 occurs.
    r"BraTS-PED-\d": (CHILDREN,),
}


@dataclass(frozen=True)
class Proposal:
    """Regions, and one line on where they come from; the line is empty if there is nothing to say."""

    regions: Regions
    line: str


def propose_regions(
    label_sets: Iterable[Collection[int]],
    modalities: Collection[str],
    ids: Collection[str] = (),
    spelled: Collection[str] = (),
    decathlon: bool = False,
    named: Regions | None = None,
) -> Proposal:
    """Propose regions.

    Args:
        label_sets: values other than 0 of every label, or of all labels together.
        modalities: of the patients.
        ids: of the patients.
        spelled: names of modalities as the files spell them; t1n, t1c and t2f are those of BraTS 2023 and later.
        decathlon: whether it is a Medical Decathlon folder.
        named: regions that dataset.json names.
    """
    sets = [set(values) for values in label_sets]
    values = sorted(set().union(*sets))
    single = {f"label_{value}": [value] for value in values}
    if named is not None:
        return Proposal(named, "as dataset.json names them")
    if values == [1, 255] and all(len(own) < 2 for own in sets):
        return Proposal(
            {"tumour": values}, "some labels have a 1 and others a 255, which are taken for the same; check this"
        )
    if VOID in values and len(values) > 1 and values[-2] < LEAST_ATLAS:
        rest = propose_regions([own - {VOID} for own in sets], modalities, ids, spelled, decathlon)
        void = f"{VOID} is left out, as it usually marks voxels to ignore: set it to 0 in the label files"
        return Proposal(rest.regions, f"{rest.line}; {void}" if rest.line else void)
    if not set(values) <= {1, 2, 3, 4}:
        return Proposal({"tumour": values} if len(values) == 1 else single, "")
    sets_named = {conventions_of(patient) for patient in ids}
    if len(sets_named) > 1:
        several = "the ids are of several data sets, whose values may differ; make them agree, and"
        return Proposal(single, f"{several} {advice(values)}")
    conventions = next(iter(sets_named), ())
    if conventions:
        fitting = next((one for one in conventions if set(values) <= one.all_values), None)
        # A 4 shows that it is BraTS 2024 of children, and a cavity only beside the 3 of enhancing tissue.
        if fitting is None or (fitting is CHILDREN and 4 not in values) or (fitting is TREATED and 3 not in values):
            return Proposal(single, f"the ids do not decide what the values stand for: {advice(values)}")
        return said(fitting, "going by the ids")
    if len(values) == 1:
        return Proposal({"tumour": values}, "")
    if any(3 in own and 4 not in own for own in sets) and any(4 in own and 3 not in own for own in sets):
        mixed = "some labels have a 3 and others a 4, which may be two conventions in one folder; make them agree, and"
        return Proposal(single, f"{mixed} {advice(values)}")
    brats, late = set(BRATS) <= set(modalities), bool({name.lower() for name in spelled} & {"t1n", "t1c", "t2f"})
    if values == [1, 2, 4] and not late:
        return said(UNTIL_2021, "going by the values")
    if values == [1, 2, 3] and brats:
        return said(DECATHLON, "going by the layout") if decathlon else said(SINCE_2023, "going by the values")
    if values and (brats or late):
        return Proposal(single, f"the values do not decide what they stand for: {advice(values)}")
    return Proposal(single, "")


def conventions_of(patient: str) -> tuple[Convention, ...]:
    """Conventions of the data set that an id names; none if it names no data set."""
    return next((named for start, named in BY_ID.items() if re.match(start, patient, re.IGNORECASE)), ())


def said(convention: Convention, evidence: str) -> Proposal:
    """Proposal of the regions of a convention, with the line that says so."""
    return Proposal(convention.regions, f"as in {convention.name}, {evidence} ({convention.values}); check this")


def advice(values: Collection[int]) -> str:
    """What to write, for each convention that has all the values."""
    fitting = [one.setting for one in CONVENTIONS if set(values) <= one.all_values]
    return f"set data.regions to {'; or '.join(fitting)}"

"""Regions are proposed where names show the convention, and never call a cavity or oedema enhancing tumour."""

import pytest

from anysubset.volumes.regions import propose_regions

BRATS = ["flair", "t2", "t1ce", "t1"]
LATE = ["t2f", "t2w", "t1c", "t1n"]
UNTIL_2021 = {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]}
SINCE_2023 = {"WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}
TREATED = {**SINCE_2023, "RC": [4]}
CHILDREN = {"WT": [1, 2, 3, 4], "TC": [1, 2, 3], "ET": [1]}
UNTIL_2016 = {"WT": [1, 2, 3, 4], "TC": [1, 3, 4], "ET": [4]}


@pytest.mark.parametrize(
    ("ids", "values", "regions"),
    [
        (["BraTS-GLI-00005-000"], [1, 2, 3], SINCE_2023),
        (["BraTS-GLI-00005-000"], [1, 2], SINCE_2023),
        (["BraTS-GLI-00005-100"], [1, 2, 3, 4], TREATED),
        (["BraTS-MET-00002-000"], [1, 2, 3], SINCE_2023),
        (["BraTS-MEN-00004-000", "BraTS-MEN-00008-000"], [1, 2, 3], SINCE_2023),
        (["BraTS-SSA-00002-000"], [1, 2, 3], SINCE_2023),
        (["BraTS-PED-00001-000"], [1, 2, 3, 4], CHILDREN),
        (["BraTS-MEN-RT-0000-1"], [1], {"tumour": [1]}),
        (["BraTS2021_00006"], [1, 2, 4], UNTIL_2021),
        (["BraTS2021_00006"], [2, 4], UNTIL_2021),
        (["BraTS20_Training_001"], [1, 2, 4], UNTIL_2021),
        (["Brats18_2013_11_1", "Brats17_TCIA_131_1"], [1, 2, 4], UNTIL_2021),
        (["UCSF-PDGM-0004_nifti"], [1, 2, 4], UNTIL_2021),
        (["UPENN-GBM-00001_11"], [1, 2, 4], UNTIL_2021),
        (["brats_2013_pat0001_1", "brats_2013_pat0002_1"], [1, 2, 3, 4], UNTIL_2016),
    ],
)
def test_ids_of_public_sets_say_what_the_values_stand_for(ids, values, regions):
    proposal = propose_regions([values], BRATS, ids)
    assert proposal.regions == regions
    assert ("going by the ids" in proposal.line) == ("tumour" not in regions)


@pytest.mark.parametrize(
    ("values", "modalities", "spelled", "regions"),
    [
        ([1, 2, 4], ["flair", "t1ce"], ["flair", "t1ce"], UNTIL_2021),
        ([1, 2, 3], BRATS, LATE, SINCE_2023),
        ([1, 2, 3], BRATS, BRATS, SINCE_2023),
    ],
)
def test_without_such_ids_values_decide_where_they_can_and_it_is_said(values, modalities, spelled, regions):
    proposal = propose_regions([values], modalities, ["p01", "p02"], spelled)
    assert proposal.regions == regions
    assert "going by the values (1 necrosis" in proposal.line


@pytest.mark.parametrize(
    ("label_sets", "ids", "spelled"),
    [
        # BraTS 2013, or 2024 of gliomas or of children.
        ([[1, 2, 3, 4]], ["p01"], BRATS),
        ([[1, 2, 3, 4]], ["p01"], LATE),
        # 4 is not the enhancing tumour of 2021 where files are named as in 2023 and later.
        ([[1, 2, 4]], ["p01"], LATE),
        # In 2023, 3 was the enhancing tumour of children; in 2024 it is a cyst.
        ([[1, 2, 3]], ["BraTS-PED-00001-000"], LATE),
        # The cavity, or the enhancing tumour of BraTS 2021 under other names.
        ([[1, 2, 4]], ["BraTS-GLI-00005-100"], LATE),
        # Two conventions in one folder.
        ([[1, 2, 4], [1, 2, 3]], ["a", "b"], BRATS),
        ([[1, 2, 4], [1, 2, 3]], ["BraTS2021_00006", "BraTS-GLI-00005-000"], LATE),
        ([[1, 2, 4], [1, 2, 4]], ["BraTS2021_00006", "BraTS-GLI-00005-100"], LATE),
        ([[1, 2, 3]], ["BraTS2021_00006", "p01"], BRATS),
        # Values that the convention of the ids does not have.
        ([[1, 2, 3]], ["BraTS2021_00006"], BRATS),
        ([[1, 2, 3, 4]], ["BraTS-MEN-00004-000"], LATE),
    ],
)
def test_where_values_are_ambiguous_each_is_a_region_and_the_line_says_what_to_write(label_sets, ids, spelled):
    proposal = propose_regions(label_sets, BRATS, ids, spelled)
    values = sorted(set().union(*label_sets))
    assert proposal.regions == {f"label_{value}": [value] for value in values}
    assert "set data.regions to {WT: [1, 2, " in proposal.line
    assert "\n" not in proposal.line


@pytest.mark.parametrize(
    ("values", "modalities", "regions"),
    [
        ([1, 2, 3], ["ct"], {"label_1": [1], "label_2": [2], "label_3": [3]}),
        ([7], ["flair"], {"tumour": [7]}),
        ([2, 5], BRATS, {"label_2": [2], "label_5": [5]}),
        ([], BRATS, {}),
    ],
)
def test_other_values_are_regions_of_their_own(values, modalities, regions):
    proposal = propose_regions([values] if values else [], modalities)
    assert (proposal.regions, proposal.line) == (regions, "")


def test_regions_of_the_decathlon_follow_its_own_label_values():
    # In Task01 1 is oedema, 2 the non-enhancing core and 3 enhancing tumour: the core is 2 and 3.
    proposal = propose_regions([[1, 2, 3]], BRATS, ["BRATS_001"], decathlon=True)
    assert proposal.regions == {"WT": [1, 2, 3], "TC": [2, 3], "ET": [3]}


def test_voxels_to_ignore_are_no_region():
    proposal = propose_regions([{1, 2, 4, 255}, {1, 255}], ["flair", "t2", "t1ce", "t1"])
    assert proposal.regions == {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]}
    assert proposal.line.endswith(
        "255 is left out, as it usually marks voxels to ignore: set it to 0 in the label files"
    )
    # 255 may be a structure beside many others, and the only value.
    assert propose_regions([{1, 200, 255}], []).regions == {"label_1": [1], "label_200": [200], "label_255": [255]}
    assert propose_regions([{255}], []).regions == {"tumour": [255]}


def test_masks_of_1_and_of_255_are_of_the_same():
    proposal = propose_regions([{1}, {255}], [])
    assert proposal.regions == {"tumour": [1, 255]}
    assert "taken for the same" in proposal.line
    assert propose_regions([{1, 255}], []).regions == {"tumour": [1]}

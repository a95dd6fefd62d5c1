"""The segmentation task: labels, regions and classes, invalid settings, and whole volumes in windows."""

import math
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from torch import Tensor
from torch.testing import assert_close

from anysubset.batches import keep
from anysubset.errors import InputError
from anysubset.models.presets import sharing_network
from anysubset.models.sharing import DynamicSharing
from anysubset.scenarios import all_scenarios
from anysubset.tasks.segmentation import Segmentation

MODALITIES = ("flair", "t2", "t1")
BRATS = {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}

close = partial(assert_close, rtol=0, atol=1e-5)


def task(
    patch: tuple[int, ...] = (16, 16), regions: Mapping[str, tuple[int, ...]] = BRATS, **options: Any
) -> Segmentation:
    return Segmentation(MODALITIES, regions, patch, **options)


def volumes(*size: int) -> dict[str, Tensor]:
    """Noise for every modality of one patient: (1, 1, X, Y, Z) each."""
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(1, 1, *size, generator=generator) for name in MODALITIES}


def network_of(task: Segmentation) -> DynamicSharing:
    torch.manual_seed(0)
    return sharing_network(task, width=0.25)


# ------------------------------------------------------------------------------------------- labels and regions


def test_regions_of_labels_by_hand():
    # Label 2 is in WT alone, 1 in WT and TC, 4 in all three.
    target = task().target(torch.tensor([0, 1, 2, 4]).view(4, 1, 1))
    assert target.dtype == torch.bool
    assert target.flatten(1).int().tolist() == [[0, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]]


def test_brats_regions_are_painted_2_then_1_then_4():
    # Every combination of WT, TC and ET, including those of no label: the region painted last counts.
    combinations = torch.cartesian_prod(*[torch.tensor([False, True])] * 3)
    painted = task().mask(combinations.T.reshape(3, 8, 1, 1)).flatten().tolist()
    expected = {(0, 0, 0): 0, (1, 0, 0): 2, (0, 1, 0): 1, (1, 1, 0): 1}
    assert painted == [expected.get(tuple(row), 4) for row in combinations.int().tolist()]


@pytest.mark.parametrize(
    "regions",
    [
        pytest.param(BRATS, id="2018"),
        pytest.param({"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}, id="2023"),
        pytest.param({"tumour": (7,)}, id="one"),
        pytest.param({"liver": (2,), "spleen": (1,), "kidney": (9,)}, id="side by side"),
        # Label 2 lies in both, 3 in the later region alone.
        pytest.param({"left": (1, 2), "upper": (2, 3)}, id="crossed"),
    ],
)
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_a_mask_survives_a_round_trip_through_regions(regions: dict[str, tuple[int, ...]], data: st.DataObject):
    made = task(regions=regions)
    values = st.sampled_from([0, *sorted(made.labels)])
    labels = torch.from_numpy(data.draw(st_numpy.arrays(np.int16, (3, 2, 2), elements=values)))
    painted = made.mask(made.target(labels))
    assert painted.dtype == torch.uint8
    assert torch.equal(painted, labels.to(torch.uint8))


def test_labels_with_the_same_regions_become_the_first_of_them():
    # Necrosis 1 and enhancing 4 have the same regions here, so a mask cannot distinguish them.
    made = task(regions={"core": (4, 1)})
    labels = torch.tensor([0, 1, 4]).view(3, 1, 1)
    painted = made.mask(made.target(labels))
    assert painted.flatten().tolist() == [0, 4, 4]
    assert torch.equal(made.target(painted), made.target(labels))


def test_labels_are_those_of_all_regions():
    assert task().labels == {1, 2, 4}


# ------------------------------------------------------------------------ regions as mutually exclusive classes

ABDOMEN = {"liver": (2,), "spleen": (1,), "kidney": (9,)}  # Disjoint.
CROSSED = {"left": (1, 2), "upper": (2, 3)}  # Overlapping, but neither contains the other.


@pytest.mark.parametrize(
    ("regions", "classes"),
    [
        pytest.param(BRATS, ["none", "WT", "WT+TC", "WT+TC+ET"], id="nested"),
        pytest.param(ABDOMEN, ["none", "liver", "spleen", "kidney"], id="side by side"),
        pytest.param(CROSSED, ["none", "left", "upper", "left+upper"], id="crossed"),
        # Labels 1 and 4 lie in the same regions: they are one class.
        pytest.param({"core": (4, 1)}, ["none", "core"], id="one region of two labels"),
    ],
)
def test_classes_are_the_distinct_sets_of_regions_of_the_labels(
    regions: dict[str, tuple[int, ...]], classes: list[str]
):
    made = task(regions=regions)
    assert [made.names_of(inside) for inside in made.classes] == classes


def test_classes_of_brats_by_hand():
    assert task().classes == (
        (False, False, False),
        (True, False, False),
        (True, True, False),
        (True, True, True),
    )


@pytest.mark.parametrize(
    "size",
    [pytest.param((2, 2), id="2-D"), pytest.param((2, 1, 2), id="3-D")],
)
def test_class_of_every_voxel_by_hand(size: tuple[int, ...]):
    # Labels 0 and 2, 1 and 4: background, oedema (WT), necrosis (WT+TC), enhancing (all three).
    labels = torch.tensor([0, 2, 1, 4]).view(size)
    target = torch.stack([task().target(labels), task().target(labels.flip(0))])
    expected = torch.tensor([[0, 1, 2, 3], [2, 3, 0, 1]]).view(2, *size)
    indices = task().class_of(target)
    assert indices.dtype == torch.int64
    assert torch.equal(indices, expected)


@pytest.mark.parametrize("size", [pytest.param((3, 1), id="2-D"), pytest.param((3, 1, 1), id="3-D")])
def test_logits_of_regions_from_class_probabilities_by_hand(size: tuple[int, ...]):
    # Three voxels. First: likeliest is WT+TC (0.4) although background and WT together have 0.5.
    probabilities = torch.tensor([[0.2, 0.3, 0.4, 0.1], [0.7, 0.1, 0.1, 0.1], [0.0, 0.0, 0.0, 1.0]])
    logits = task().of_classes(probabilities.T.reshape(1, 4, *size))
    assert logits.shape == (1, 3, *size)
    first, second, third = logits.reshape(3, 3).T
    # WT: best inside 0.4 against background 0.2; TC: 0.4 against 0.3; ET: 0.1 against 0.4.
    close(first, torch.tensor([2.0, 4 / 3, 1 / 4]).log())
    close(second, torch.tensor([1 / 7, 1 / 7, 1 / 7]).log())
    assert third.isfinite().all()
    assert (third > 80).all()


def test_a_voxel_with_two_equally_probable_classes_lies_in_the_regions_of_both():
    # WT and WT+TC with 0.4 each: in WT, not in TC.
    logits = task().of_classes(torch.tensor([0.1, 0.4, 0.4, 0.1]).view(1, 4, 1))
    close(logits.flatten(), torch.tensor([4.0, 1.0, 0.25]).log())
    assert (logits > 0).flatten().tolist() == [True, False, False]


def test_half_precision_probabilities_give_float32_logits():
    # 1e-12 is 0 in float16: without float32 the logarithm would be infinite.
    logits = task().of_classes(torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float16).view(1, 4, 1))
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


@pytest.mark.parametrize("regions", [BRATS, ABDOMEN, CROSSED], ids=["nested", "side by side", "crossed"])
@pytest.mark.parametrize("size", [(2, 3), (2, 3, 2)], ids=["2-D", "3-D"])
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_regions_from_class_probabilities_are_those_of_the_most_probable_class(
    regions: dict[str, tuple[int, ...]], size: tuple[int, ...], data: st.DataObject
):
    made = task(regions=regions)
    count = len(made.classes)
    # Distinct probabilities in every voxel: each is a permutation of 1, 2, ... over their sum.
    orders = [data.draw(st.permutations(range(1, count + 1))) for _ in range(2 * math.prod(size))]
    probabilities = torch.tensor(orders).view(2, *size, count).movedim(-1, 1) / (count * (count + 1) / 2)
    decided = made.of_classes(probabilities) > 0
    likeliest = probabilities.argmax(dim=1)
    assert torch.equal(made.class_of(decided), likeliest)
    # Conversely, one-hot probabilities of the classes give the same regions.
    one_hot = torch.nn.functional.one_hot(likeliest, count).movedim(-1, 1)
    assert torch.equal(made.of_classes(one_hot) > 0, decided)


@pytest.mark.parametrize(
    ("regions", "inside", "message"),
    [
        pytest.param(BRATS, [False, True, False], "2 voxels .* in TC alone; the classes are: none; WT; WT", id="TC"),
        pytest.param(BRATS, [True, False, True], r"in WT\+ET alone", id="WT+ET"),
        pytest.param(ABDOMEN, [True, True, False], r"in liver\+spleen alone", id="two organs"),
    ],
)
def test_a_combination_of_regions_of_no_class_is_refused(
    regions: dict[str, tuple[int, ...]], inside: list[bool], message: str
):
    # Two of four voxels, in one of two samples.
    target = torch.zeros(2, 3, 4, dtype=torch.bool)
    target[1, :, 2:] = torch.tensor(inside)[:, None]
    with pytest.raises(InputError, match=message):
        task(regions=regions).class_of(target)


# --------------------------------------------------------------------------------------------- refused settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"regions": {}}, r"needs at least one region, such as regions: \{tumour: \[1\]\}"),
        ({"regions": {"WT": (1, 0)}}, r"'WT' needs labels other than 0 \(the background\)"),
        ({"regions": {"WT": (1,), "ET": ()}}, "'ET' needs labels other than 0"),
        ({"patch": (16,)}, r"2 or 3 positive sizes, not \[16\]"),
        ({"patch": (16, 16, 16, 16)}, "2 or 3 positive sizes"),
        ({"patch": (16, 0)}, r"2 or 3 positive sizes, not \[16, 0\]"),
        ({"patch": ()}, r"2 or 3 positive sizes, not \[\]"),
        ({"pool": "volume"}, "pooled over 'batch' or 'sample', not 'volume'"),
        ({"overlap": 1.0}, r"from 0 to below 1, not 1\.0"),
        ({"overlap": -0.1}, r"from 0 to below 1, not -0\.1"),
        ({"window": "gausian"}, "Unknown window 'gausian'. Did you mean 'gaussian'?"),
        ({"window": "constant"}, r"Choose from: gaussian, uniform\."),
        ({"cross_entropy": -1.0}, "0 or more, not -1"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        task(**settings)


@pytest.mark.parametrize(
    ("modalities", "message"),
    [
        ((), "needs at least one modality"),
        (("t1", "t2", "t1"), "named twice: t1, t2, t1"),
        (("t1-ce",), "'t1-ce' is not a plain name"),
        (("t1+t2",), "not a plain name"),
        (("",), "not a plain name"),
    ],
)
def test_invalid_names_of_modalities_are_refused(modalities: tuple[str, ...], message: str):
    with pytest.raises(InputError, match=re.escape(message)):
        Segmentation(modalities, BRATS)


@pytest.mark.parametrize("name", ["type", "values", "training"])
def test_a_modality_that_cannot_name_a_torch_module_is_refused(name: str):
    with pytest.raises(InputError):
        Segmentation((name, "t1"), BRATS)


@pytest.mark.parametrize("label", [256, -1])
def test_a_label_outside_uint8_is_refused(label: int):
    with pytest.raises(InputError):
        task(regions={"WT": (label,)})


# ------------------------------------------------------------------------------------------------------ the loss


def test_pool_sets_the_sums_of_the_dice_loss_and_cross_entropy_is_added_with_its_weight():
    # Zero logits on 8 voxels, one sample full and one empty; cross entropy is ln 2 everywhere.
    logits = torch.zeros(2, 1, 2, 4)
    target = torch.tensor([True, False]).view(2, 1, 1, 1).expand(2, 1, 2, 4)
    regions = {"tumour": (1,)}
    per_sample = (4 / 13 + 4 / 5) / 2
    close(task(regions=regions).loss(logits, target), torch.tensor(8 / 17))
    close(task(regions=regions, pool="sample").loss(logits, target), torch.tensor(per_sample))
    close(task(regions=regions, cross_entropy=0.5).loss(logits, target), torch.tensor(8 / 17 + 0.5 * math.log(2)))


# --------------------------------------------------------------------------------------------------- the network


# --------------------------------------------------------------------------------------------------- whole volumes


@torch.no_grad()
def test_a_window_that_covers_the_volume_gives_the_output_of_the_network():
    made = task((16, 16, 16))
    net, inputs = network_of(made), volumes(16, 16, 16)
    for scenario in (MODALITIES, ("t2",), ("flair", "t1")):
        present = keep(inputs, scenario)
        close(made.carry(net, present), net(present))


@torch.no_grad()
def test_slices_go_through_the_network_one_by_one_and_keep_their_order():
    made = task((16, 16))
    net, inputs = network_of(made), volumes(16, 16, 3)
    for scenario in all_scenarios(MODALITIES):
        present = keep(inputs, scenario)
        slices = [net({name: volume[..., index] for name, volume in present.items()}) for index in range(3)]
        assert not torch.allclose(slices[0], slices[1])
        close(made.carry(net, present), torch.stack(slices, dim=-1))


@pytest.mark.parametrize(
    ("patch", "size"),
    [
        pytest.param((16, 16), (16, 16, 40), id="more slices than one batch"),
        pytest.param((16, 16), (37, 21, 2), id="slices larger than the patch"),
        pytest.param((16, 16), (5, 30, 2), id="slices smaller than the patch"),
        pytest.param((16, 8, 16), (24, 20, 18), id="a volume larger than the patch"),
        pytest.param((16, 16, 16), (9, 24, 7), id="a volume smaller than the patch"),
    ],
)
@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_windows_do_not_change_a_voxelwise_function(patch: tuple[int, ...], size: tuple[int, ...], overlap: float):
    # Two regions, computed voxel by voxel from modalities by name.
    def voxelwise(present: Mapping[str, Tensor]) -> Tensor:
        assert list(present) == ["t1", "flair"]
        assert all(x.shape[1:] == (1, *patch) for x in present.values())
        return torch.cat([present["t1"] - 2.0 * present["flair"], 3.0 * present["t1"]], dim=1)

    inputs = keep(volumes(*size), ("t1", "flair"))
    expected = torch.cat([inputs["t1"] - 2.0 * inputs["flair"], 3.0 * inputs["t1"]], dim=1)
    close(task(patch, overlap=overlap).carry(voxelwise, inputs), expected)


@pytest.mark.parametrize(("overlap", "windows"), [(0.0, 2), (0.25, 3), (0.5, 3), (0.75, 5)])
def test_windows_overlap_by_a_share_of_the_patch(overlap: float, windows: int):
    # 32 pixels in windows of 16 that move on by 16, 12, 8 or 4: from 0 16; 0 12 16; 0 8 16; 0 4 8 12 16.
    seen = 0

    def counting(present: Mapping[str, Tensor]) -> Tensor:
        nonlocal seen
        seen += len(present["t1"])
        return present["t1"]

    task((16, 16), overlap=overlap).carry(counting, {"t1": torch.zeros(1, 1, 32, 16, 1)})
    assert seen == windows


def means_of_two_windows(made: Segmentation) -> Tensor:
    """The means of two windows of 16 pixels, 1/4 (from pixel 0) and 1/2 (from pixel 8), averaged over 24 pixels."""
    volume = torch.zeros(1, 1, 24, 16, 1)
    volume[:, :, 12:20] = 1.0

    def mean_of_window(present: Mapping[str, Tensor]) -> Tensor:
        return present["t1"].mean(dim=(2, 3), keepdim=True).expand_as(present["t1"]).clone()

    return made.carry(mean_of_window, {"t1": volume})[0, 0, :, 8, 0]


def test_gaussian_weights_favour_the_window_with_the_nearer_centre():
    averaged = means_of_two_windows(task((16, 16)))
    # Pixels below 8 lie in the first window alone, those from 16 in the second alone.
    close(averaged[:8], torch.full((8,), 0.25))
    close(averaged[16:], torch.full((8,), 0.5))
    # In between the value rises from 1/4 to 1/2, symmetrically about the middle.
    assert (averaged[8:16].diff() > 0).all()
    close(averaged[8:16] + averaged[8:16].flip(0), torch.full((8,), 0.75))


def test_uniform_weights_differ_from_gaussian_ones_only_where_windows_overlap():
    averaged = means_of_two_windows(task((16, 16), window="uniform"))
    # Where the windows overlap: (1/4 + 1/2) / 2.
    close(averaged, torch.tensor([0.25] * 8 + [0.375] * 8 + [0.5] * 8))


@pytest.mark.parametrize("patch", [(2, 3), (2, 3, 4)], ids=["2-D", "3-D"])
@pytest.mark.parametrize("window", ["gaussian", "uniform"])
def test_mirroring_is_the_mean_over_flips_along_every_combination_of_axes(patch: tuple[int, ...], window: str):
    # f multiplies a voxel by the product of its indices. Flips replace an index i of n by n - 1 - i, so the mean over
    # all combinations is the product of the mean indices: 1/2 * 1, and in 3-D also * 3/2, in every voxel.
    grids = torch.meshgrid([torch.arange(float(size)) for size in patch], indexing="ij")
    product = torch.stack(grids).prod(dim=0)
    calls = 0

    def asymmetric(present: Mapping[str, Tensor]) -> Tensor:
        nonlocal calls
        calls += 1
        return torch.cat([present["t2"] * product, present["flair"] * product], dim=1)

    size = (*patch, 1)[:3]
    inputs = keep(volumes(*size), ("t2", "flair"))
    expected = torch.cat([inputs["t2"], inputs["flair"]], dim=1)
    mean = 0.5 if len(patch) == 2 else 0.75
    close(task(patch, window=window, mirror=True).carry(asymmetric, inputs), mean * expected)
    assert calls == 2 ** len(patch)
    # `mirror` is off by default.
    by_default = task(patch, window=window).carry(asymmetric, inputs)
    close(by_default, product.view(1, 1, *size) * expected)
    assert calls == 2 ** len(patch) + 1


@torch.no_grad()
def test_with_mirror_a_flipped_volume_gives_the_flipped_output():
    made = task((16, 16), mirror=True)
    net, inputs = network_of(made), volumes(16, 16, 2)
    flipped = {name: volume.flip(2) for name, volume in inputs.items()}
    assert not torch.allclose(task((16, 16)).carry(net, inputs), task((16, 16)).carry(net, flipped).flip(2))
    close(made.carry(net, inputs), made.carry(net, flipped).flip(2))


def test_a_region_is_predicted_where_its_logit_is_above_0():
    logits = torch.tensor([[[-0.1, 0.0, 0.1]]]).expand(1, 3, 3)
    assert task().prediction(logits).tolist() == [[[False, False, True]] * 3]


def test_a_region_is_predicted_where_its_probability_is_above_its_threshold():
    logits = torch.tensor([0.35, 0.45, 0.55, 0.65]).logit().expand(1, 3, 4)
    assert task(threshold=0.4).prediction(logits).sum(dim=2).tolist() == [[3, 3, 3]]
    # The order of the regions is that of the task: WT, TC, ET.
    assert task(threshold={"ET": 0.6, "WT": 0.3}).prediction(logits).sum(dim=2).tolist() == [[4, 2, 1]]
    # Until validation has chosen them, thresholds are 1/2.
    assert task(threshold="validated").prediction(logits).sum(dim=2).tolist() == [[2, 2, 2]]


@pytest.mark.parametrize(
    ("threshold", "message"),
    [
        (1.0, "task.threshold is a probability above 0 and below 1, one for each region, or 'validated', not 1.0"),
        ({"WT": float("nan")}, "task.threshold is a probability .* not nan"),
        ("validatd", "task.threshold is a probability .* not 'validatd'"),
        ({"EN": 0.5}, "Unknown region of task.threshold 'EN'"),
    ],
)
def test_a_threshold_without_a_meaning_is_refused(threshold: Any, message: str):
    with pytest.raises(InputError, match=message):
        task(threshold=threshold)


def test_the_thresholds_are_said_in_words():
    assert task().threshold_rule == ""
    rule = "A voxel belongs to a region above this probability: WT 0.5, TC 0.5, ET 0.35."
    assert task(threshold={"ET": 0.35}).threshold_rule == rule
    assert "was chosen on validation" in task(threshold="validated").threshold_rule


def line_logits(**voxels: int) -> Tensor:
    """Logits (1, regions, 10, 1, 1) that are positive in the first voxels of each region of BRATS."""
    logits = torch.full((1, 3, 10, 1, 1), -1.0)
    for index, region in enumerate(BRATS):
        logits[0, index, : voxels[region]] = 1.0
    return logits


def test_a_small_region_is_removed_and_its_voxels_belong_to_the_one_around_it():
    with_rule = task(smallest={"ET": 3})
    # ET has 2 voxels, fewer than 3: they become 1, the label of TC without ET.
    assert with_rule.mask(with_rule.prediction(line_logits(WT=6, TC=4, ET=2))[0]).flatten().tolist() == [
        *(1, 1, 1, 1, 2, 2, 0, 0, 0, 0)
    ]
    # With 3 voxels it stays, and so it does without the rule.
    enough, without_rule = line_logits(WT=6, TC=4, ET=3), task().prediction(line_logits(WT=6, TC=4, ET=2))
    assert with_rule.mask(with_rule.prediction(enough)[0]).flatten().tolist() == [4, 4, 4, 1, 2, 2, 0, 0, 0, 0]
    assert task().mask(without_rule[0]).flatten().tolist() == [4, 4, 1, 1, 2, 2, 0, 0, 0, 0]


def test_the_regions_inside_a_small_region_are_removed_with_it_in_each_volume_by_itself():
    logits = torch.cat([line_logits(WT=6, TC=4, ET=2), line_logits(WT=6, TC=5, ET=2)])
    decided = task(smallest={"TC": 5}).prediction(logits)
    assert decided.flatten(2).sum(dim=2).tolist() == [[6, 0, 0], [6, 5, 2]]


@pytest.mark.parametrize(
    ("smallest", "message"),
    [
        ({"EN": 500}, "Unknown region of task.smallest 'EN'"),
        ({"ET": 0}, "task.smallest is a number of voxels from 1 for each region, not ET: 0"),
        ({"ET": 2.5}, "task.smallest is a number of voxels from 1 for each region, not ET: 2.5"),
    ],
)
def test_a_size_rule_without_a_meaning_is_refused(smallest: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        task(smallest=smallest)


def test_the_size_rule_is_said_in_words():
    assert task().size_rule == ""
    assert task(smallest={"ET": 500}).size_rule == "Regions with fewer voxels than this are removed: ET 500."


def test_the_window_average_of_a_scenario_is_the_mean_of_those_of_its_modalities():
    # Windows and the affine head are linear, so an evaluation may run each modality once for all scenarios.
    made = task((16, 16))
    net, inputs = network_of(made), volumes(24, 20, 2)
    alone = [
        made.carry(lambda present, name=name: net.predict_one(name, present[name]), {name: volume})
        for name, volume in inputs.items()
    ]
    close(made.carry(net, inputs), torch.stack(alone).mean(dim=0))

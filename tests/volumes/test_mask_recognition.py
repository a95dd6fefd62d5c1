"""Masks are recognised by their voxels."""

import numpy as np
import pytest

from anysubset.volumes.mask_recognition import MaskFindings, fills_image, has_few_whole_values, repeats_label

SHAPE = (8, 8, 6)


def random(low: float, high: float) -> np.ndarray:
    return np.random.default_rng(0).uniform(low, high, SHAPE).astype(np.float32)


def box(value: float) -> np.ndarray:
    volume = np.zeros(SHAPE, np.float32)
    volume[2:5, 2:5, 2:5] = value
    return volume


@pytest.mark.parametrize(
    ("volume", "expected"),
    [
        (box(1), True),
        (box(255), True),
        (np.floor(random(0, 9.99)), True),  # 0 to 9.
        (np.floor(random(0, 12)), False),
        (box(0.5), False),
        (box(-1), False),
        (box(300), False),
        (random(0, 1), False),
        (np.floor(random(0, 250)), False),
    ],
)
def test_a_mask_has_few_whole_values(volume, expected):
    assert has_few_whole_values(volume) == expected


def test_a_copy_of_the_label_is_recognised_also_with_other_values():
    label = box(2).astype(np.uint8)
    assert repeats_label(box(2), label)
    assert repeats_label(box(1), label)
    assert not repeats_label(random(1, 9), label)
    assert not repeats_label(np.roll(box(2), 1, axis=0), label)
    assert not repeats_label(box(2), np.zeros(SHAPE, np.uint8))
    assert not repeats_label(box(2), None)


def test_a_map_of_any_values_in_exactly_the_voxels_of_the_label_is_no_modality():
    findings = MaskFindings()
    label = box(1).astype(np.uint8)
    findings.add("p0", {"t1": random(1, 99), "softmap": box(1) * random(0.1, 1)}, label)
    findings.add("p1", {"t1": random(1, 99), "softmap": box(1) * random(0.1, 1)}, np.zeros(SHAPE, np.uint8))
    assert findings.masks == ["softmap"]
    (line,) = findings.lines()
    assert line.startswith("softmap differs from 0 in exactly the voxels of the label in 1 patients (p0).")


def test_of_a_mask_where_nobody_has_a_label_it_is_said_how_to_make_it_the_label():
    findings = MaskFindings()
    findings.add("p0", {"t1": random(1, 99), "t1_roi": box(1)}, None)
    assert findings.lines()[0].endswith("If it is the label, call its file <id>_seg.nii.gz.")


def test_a_label_that_fills_the_image_is_noticed():
    head = box(1) * random(50, 99)
    assert fills_image(box(1).astype(np.uint8), [head])
    assert not fills_image((box(1) * (random(0, 1) < 0.5)).astype(np.uint8), [head])
    # Without skull-stripping there is something everywhere.
    assert not fills_image(np.ones(SHAPE, np.uint8), [random(1, 2)])


def test_a_modality_of_no_usual_name_is_a_mask_if_it_looks_like_one_in_every_patient():
    findings = MaskFindings()
    label = box(1).astype(np.uint8)
    for number in range(3):
        volumes = {"t1": random(1, 99), "wt": box(1), "adc": random(0, 9), "x": box(1) if number else random(1, 9)}
        findings.add(f"p{number}", volumes, label)
    assert findings.masks == ["wt"]
    wt, x = findings.lines()
    assert wt.startswith("wt has at most 10 values, all whole, in 3 patients (p0, p1, p2), as a mask has; in 3 of them")
    assert wt.endswith("It is taken for a mask, not for a modality.")
    assert x.startswith("x has at most 10 values, all whole, in 2 patients (p1, p2)")
    assert x.endswith("is it an image? If not, leave it out of data.modalities.")


def test_a_copy_of_the_label_under_the_name_of_a_contrast_is_no_modality():
    findings = MaskFindings()
    for number in range(2):
        findings.add(f"p{number}", {"t1": random(1, 9), "flair": box(2)}, box(2).astype(np.uint8))
    assert findings.masks == ["flair"]
    (line,) = findings.lines()
    assert "in 2 of them its voxels are those of the label. It is taken for a mask, not for a modality." in line


def test_a_usual_modality_is_asked_about_and_not_left_out():
    findings = MaskFindings()
    findings.add("p", {"t1": box(1), "flair": random(1, 9)}, None)
    assert findings.masks == []
    (line,) = findings.lines()
    assert line.startswith("t1 has at most 10 values")

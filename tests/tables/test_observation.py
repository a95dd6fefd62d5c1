import numpy as np
import pytest
import torch

from anysubset.errors import InputError
from anysubset.tables.observation import Column, Faults, faults_line, note_on_code, notes_on, observe

NAN = np.nan


def test_a_sample_whose_values_are_all_nan_lacks_the_modality():
    observed, faults = observe("audio", Column(np.array([[1.0, 2.0], [NAN, NAN], [0.0, 0.0]])), 3)
    assert observed.indices.tolist() == [0, 2]
    assert observed.values.tolist() == [[1, 2], [0, 0]]
    assert faults == Faults()


def test_a_sequence_is_missing_if_all_of_its_real_steps_are_nan():
    values = np.array([[[1.0], [2.0]], [[NAN], [7.0]], [[NAN], [NAN]], [[NAN], [5.0]]])
    column = Column(values, valid=np.array([[True, True], [True, False], [True, True], [True, True]]))
    observed, faults = observe("audio", column, 4)
    assert observed.indices.tolist() == [0, 3]
    # The last one has a step: it stays, and its other step counts as padding.
    assert observed.valid is not None
    assert observed.valid.tolist() == [[True, True], [False, True]]
    assert observed.values.flatten(1).tolist() == [[1, 2], [0, 5]]
    assert faults == Faults()
    assert notes_on("audio", column, faults) == [
        "1 steps of audio are NaN throughout, in 1 samples: they count as padding."
    ]


def test_a_step_that_is_nan_in_part_is_a_fault():
    values = np.array([[[1.0, 2.0], [NAN, 5.0], [NAN, NAN]]])
    _, faults = observe("audio", Column(values, valid=np.ones((1, 3), bool)), 1)
    assert faults == Faults(values=1, samples=1, sample=(0, (1, 0)))


@pytest.mark.parametrize(
    ("shape", "noted"), [((2, 8, 8, 3), True), ((2, 3, 8, 8), False), ((2, 64, 1, 1), False), ((2, 1, 8, 3), False)]
)
def test_images_whose_channels_seem_to_be_the_last_axis_are_noted(shape, noted):
    lines = notes_on("scan", Column(np.ones(shape)), Faults())
    assert [line.startswith("scan is read as images of 8 channels and 8 x 3 pixels") for line in lines] == [
        True
    ] * noted


def test_a_number_that_seems_to_stand_for_missing_values_is_noted():
    column = Column(np.array([[-9999.0, -9999.0], [0.5, -9999.0], [3.0, 4.0]]))
    (line,) = note_on_code("audio", observe("audio", column, 3)[0])
    assert line.startswith("3 values of audio are -9999, in 2 samples: if this stands for a missing value, leave")
    # Beside -7000, -9999 is a value like others; so is -9998.
    for values in ([[-9999.0], [-7000.0]], [[-9998.0], [1.0]]):
        assert note_on_code("audio", observe("audio", Column(np.array(values)), 2)[0]) == []


def test_an_image_is_missing_if_all_of_its_pixels_are_nan():
    images = np.ones((3, 2, 2, 2))
    images[1] = NAN
    images[2, 1, 0, 1] = NAN
    observed, faults = observe("scan", Column(images), 3)
    assert observed.indices.tolist() == [0, 2]
    assert faults.sample == (2, (1, 0, 1))


def test_token_ids_of_a_sample_without_them_may_be_nan():
    tokens = np.array([[3.0, 4.0], [NAN, NAN]])
    observed, _ = observe("text", Column(tokens, valid=np.ones((2, 2), bool), vocabulary=9), 2)
    assert (observed.indices.tolist(), observed.values.tolist()) == ([0], [[3, 4]])
    assert observed.values.dtype == torch.int64
    with pytest.raises(InputError, match="token ids are not whole numbers"):
        observe("text", Column(np.array([[3.0, NAN]]), valid=np.ones((1, 2), bool), vocabulary=9), 1)


def test_infinite_values_and_values_beyond_float32_are_faults_and_not_missing():
    values = np.array([[-np.inf, -np.inf], [-6e38, 1.0], [3e38, 2.0]])
    observed, faults = observe("audio", Column(values), 3)
    assert observed.indices.tolist() == [0, 1, 2]
    assert faults == Faults(values=3, samples=2, beyond=1, sample=(0, (0,)))
    assert observed.values[0].tolist() == [0, 0]
    assert notes_on("audio", Column(values), faults) == [
        "1 values of audio became 0 although they are finite: they are beyond float32."
    ]


def test_a_sample_that_is_marked_as_present_and_holds_only_nan_is_missing_and_noted():
    column = Column(np.array([[1.0], [NAN], [NAN]]), present=np.array([True, True, False]))
    assert observe("audio", column, 3)[0].indices.tolist() == [0]
    assert notes_on("audio", column, Faults()) == ["1 samples have audio that is NaN throughout: it counts as missing."]


@pytest.mark.parametrize(
    ("position", "names", "words"),
    [
        ((1,), ("a_0", "a_7"), "audio of 's1', column 'a_7'."),
        ((1,), None, "audio of 's1', column 1."),
        ((4, 1), None, "audio of 's1', step 4, column 1."),
        ((0, 2, 3), None, "audio of 's1', channel 0, pixel (2, 3)."),
    ],
)
def test_the_first_fault_is_named_by_sample_and_column(position, names, words):
    faults = {"audio": Faults(values=2, samples=1, sample=(1, position))}
    line = faults_line(faults, {"audio": Column(np.zeros((2, 2)), names=names)}, ["s0", "s1"])
    assert line.startswith("Blank, NaN or infinite values: audio 2 (in 1 samples). The option clean='zero'")
    assert line.endswith(words)

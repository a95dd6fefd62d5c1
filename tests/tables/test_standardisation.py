import pytest
import torch

from anysubset.batches import Observed
from anysubset.errors import InputError
from anysubset.tables.standardisation import standardised, statistics
from anysubset.tables.table import Table


def table(values, valid=None) -> Table:
    """Samples with one modality."""
    inputs = {"x": Observed(torch.as_tensor(values), torch.arange(len(values)), valid)}
    return Table(tuple(map(str, range(len(values)))), inputs, torch.zeros(len(values)))


def test_padding_does_not_enter_the_statistics():
    # 1 and 3 are real, and a third step is padding; (4 - 2) / 1 = 2.
    train = table([[[1.0], [3.0], [0.0]]], torch.tensor([[True, True, False]]))
    test = table([[[4.0], [0.0]]], torch.tensor([[True, False]]))
    by = statistics(train)
    assert [statistic.tolist() for statistic in by["x"]] == [[2.0], [1.0]]
    assert standardised(test, by).inputs["x"].values.tolist() == [[[2.0], [0.0]]]


def test_columns_get_mean_0_and_deviation_1_and_constant_ones_become_0():
    train = table([[1e6, 1e-6, 5.0], [3e6, 3e-6, 5.0]])
    values = standardised(train, statistics(train)).inputs["x"].values
    torch.testing.assert_close(values, torch.tensor([[-1.0, -1.0, 0.0], [1.0, 1.0, 0.0]]))


def test_images_are_standardised_by_channel():
    train = table(torch.arange(16.0).reshape(2, 2, 2, 2))
    values = standardised(train, statistics(train)).inputs["x"].values
    torch.testing.assert_close(values.mean(dim=(0, 2, 3)), torch.zeros(2))
    torch.testing.assert_close(values.std(dim=(0, 2, 3), correction=0), torch.ones(2))


def test_token_ids_are_not_standardised():
    tokens = table([[101, 0]], torch.tensor([[True, False]]))
    assert statistics(tokens) == {}
    assert standardised(tokens, {}).inputs["x"].values.tolist() == [[101, 0]]


def test_faults_are_one_clear_line():
    with pytest.raises(InputError, match="x has no statistics"):
        standardised(table([[1.0]]), {})
    with pytest.raises(InputError, match="x has size 2 and statistics of size 1"):
        standardised(table([[1.0, 2.0]]), statistics(table([[1.0]])))


@pytest.mark.parametrize("far", [1e38, -3e38])
def test_a_value_that_overflows_only_after_standardisation_is_named(far):
    # Deviation 0.01: 1e38 in float32 is 1e40 deviations from the mean.
    by = statistics(table([[0.0, 0.99], [0.0, 1.01]]))
    with pytest.raises(InputError, match=r"x of sample '1' is -?[13]e\+38 in column 1: .* is beyond float32"):
        standardised(table([[0.0, 1.0], [0.0, far]]), by)

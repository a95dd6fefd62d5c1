import math

import pytest
import torch

from anysubset.evaluation.spreads import spreads_of


def test_the_spread_is_half_way_to_that_of_all_scenarios():
    targets = torch.arange(30.0)
    # 30 residuals of 2 and -2, and 10 of 0: all together sqrt(120 / 40).
    residuals = torch.tensor([2.0, -2.0]).repeat(15)
    predicted = {("a",): ((targets + residuals)[:, None], targets), ("b",): (targets[:10, None], targets[:10])}
    overall = math.sqrt(3)
    assert spreads_of(predicted) == {
        "overall": pytest.approx(overall),
        "by_scenario": {"a": pytest.approx(math.sqrt(2 * overall))},  # b has too few samples.
    }

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from anysubset.training.cost import CostLog, flop_counter, flops_of, most_bytes


def test_a_product_counts_a_multiplication_and_an_addition_forward_and_backward():
    layer, x = nn.Linear(5, 7, bias=False), torch.ones(3, 5)
    assert flops_of(lambda: layer(x)) == 2 * 3 * 5 * 7
    # Backward there is one more such product: for the weights, since the input needs no gradient.
    assert flops_of(lambda: layer(x).sum().backward()) == 2 * (2 * 3 * 5 * 7)


def test_a_convolution_counts_its_window_at_every_place():
    layer = nn.Conv2d(2, 3, kernel_size=3, padding=1, bias=False)
    assert flops_of(lambda: layer(torch.ones(1, 2, 4, 4))) == 2 * (2 * 9) * 3 * 16


def test_attention_counts_both_of_its_products():
    query = torch.ones(1, 1, 4, 8)
    assert flops_of(lambda: functional.scaled_dot_product_attention(query, query, query)) == 2 * (2 * 4 * 4 * 8)


def test_what_is_counted_is_known_when_it_is_over():
    layer = nn.Linear(2, 2, bias=False)
    with flop_counter() as counted:
        layer(torch.ones(1, 2))
        assert counted() == 8
        layer(torch.ones(1, 2))
    layer(torch.ones(1, 2))
    assert counted() == 16


def test_memory_grows_with_what_is_held():
    before = most_bytes(torch.device("cpu"))
    assert before is not None
    held = torch.ones(2**26)  # 256 MiB, each page of it touched.
    after = most_bytes(torch.device("cpu"))
    assert after is not None
    assert after >= held.numel() * 4
    assert after >= before


def test_a_file_goes_on_with_what_it_holds(tmp_path: Path):
    path = tmp_path / "cost.json"
    first = CostLog(path, 0)
    first.flops += [7, 8, 9]
    first.save(100)
    # Killed, and resumed from the checkpoint of step 2.
    second = CostLog(path, 2)
    assert second.flops == [7, 8]
    second.flops.append(10)
    second.save(60)
    assert json.loads(path.read_text()) == {"flops": [7, 8, 10], "most_bytes": 100}


@pytest.mark.parametrize(("before", "now", "kept"), [(None, None, None), (None, 5, 5), (5, None, 5)])
def test_what_nobody_knows_is_left_out(tmp_path: Path, before: int | None, now: int | None, kept: int | None):
    path = tmp_path / "cost.json"
    CostLog(path, 0).save(before)
    CostLog(path, 0).save(now)
    assert json.loads(path.read_text()) == {"flops": [], "most_bytes": kept}

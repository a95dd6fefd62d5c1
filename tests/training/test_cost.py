import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import rnn
from torch.utils.flop_counter import FlopCounterMode

from anysubset.training.cost import (
    CostLog,
    flop_counter,
    flops_of,
    most_bytes,
    recurrent_layers,
    recurrent_layers_backward,
)


def test_a_product_counts_a_multiplication_and_an_addition_forward_and_backward():
    layer, x = nn.Linear(5, 7, bias=False), torch.ones(3, 5)
    assert flops_of(lambda: layer(x)) == 2 * 3 * 5 * 7
    # Backward there is one more such product: for the weights, since the input needs no gradient.
    assert flops_of(lambda: layer(x).sum().backward()) == 2 * (2 * 3 * 5 * 7)


def test_a_convolution_counts_its_kernel_at_every_position():
    layer = nn.Conv2d(2, 3, kernel_size=3, padding=1, bias=False)
    assert flops_of(lambda: layer(torch.ones(1, 2, 4, 4))) == 2 * (2 * 9) * 3 * 16


def test_attention_counts_its_two_matrix_products():
    query = torch.ones(1, 1, 4, 8)
    assert flops_of(lambda: functional.scaled_dot_product_attention(query, query, query)) == 2 * (2 * 4 * 4 * 8)


@pytest.mark.parametrize(("layer", "gates"), [(nn.LSTM, 4), (nn.GRU, 3)])
@pytest.mark.parametrize("lengths", [(5, 5), (5, 2)], ids=["equal", "ragged"])
def test_a_recurrent_layer_counts_its_products_with_inputs_and_states(
    layer: type[nn.LSTM | nn.GRU], gates: int, lengths: tuple[int, int]
):
    # Two layers in two directions: 3 features and states of 4, then 8 features and states of 4.
    network = layer(3, 4, num_layers=2, bidirectional=True, batch_first=True)
    x = torch.ones(2, 5, 3, requires_grad=True)
    packed = rnn.pack_padded_sequence(x, torch.tensor(lengths), batch_first=True)
    forward = 2 * sum(lengths) * 2 * gates * 4 * ((3 + 4) + (8 + 4))
    assert flops_of(lambda: network(packed)) == forward
    # Backward there are two such products. Where steps are counted one by one, those with the initial states are less.
    both = flops_of(lambda: network(packed)[0].data.sum().backward())
    assert 0.8 * 3 * forward < both <= 3 * forward


@torch.inference_mode()
def test_operations_that_consist_of_others_count_these():
    # In inference mode `linear` and `matmul` are not taken apart before they are counted.
    layer, x = nn.Linear(5, 7), torch.ones(3, 5)
    assert flops_of(lambda: layer(x) @ torch.ones(2, 7, 4)) == 2 * 3 * 5 * 7 + 2 * (2 * 3 * 7 * 4)


def test_a_transposed_convolution_is_counted_as_by_pytorch():
    layer = nn.ConvTranspose2d(2, 3, kernel_size=2, stride=2)

    def step() -> None:
        layer(torch.ones(1, 2, 4, 4)).sum().backward()

    with FlopCounterMode(display=False) as counted:
        step()
    assert flops_of(step) == counted.get_total_flops() > 0


def test_recurrent_layers_on_a_gpu_count_matrices_and_no_biases():
    # An LSTM of 3 features and states of 4, on 2 sequences of 5 steps.
    shapes = [(16, 3), (16, 4), (16,), (16,)]
    assert recurrent_layers((5, 2, 3), shapes) == 2 * 10 * 16 * (3 + 4)
    assert recurrent_layers_backward((5, 2, 3), shapes) == 2 * recurrent_layers((5, 2, 3), shapes)


def test_the_count_can_be_read_after_the_context():
    layer = nn.Linear(2, 2, bias=False)
    with flop_counter() as flops_so_far:
        layer(torch.ones(1, 2))
        assert flops_so_far() == 8
        layer(torch.ones(1, 2))
    layer(torch.ones(1, 2))
    assert flops_so_far() == 16


def test_peak_memory_includes_a_large_tensor():
    before = most_bytes(torch.device("cpu"))
    assert before is not None
    tensor = torch.ones(2**26)  # 256 MiB, each page of it touched.
    after = most_bytes(torch.device("cpu"))
    assert after is not None
    assert after >= tensor.numel() * 4
    assert after >= before


def test_a_resumed_run_continues_the_file_from_its_checkpoint(tmp_path: Path):
    path = tmp_path / "cost.json"
    first = CostLog(path, 0)
    first.begin_stage("train", 5)
    first.flops["train"] += [7, 8, 9]
    first.save(100)
    # Killed, and resumed from the checkpoint of step 2.
    second = CostLog(path, 2)
    second.begin_stage("train", 5)
    assert second.flops == {"train": [7, 8]}
    second.flops["train"].append(10)
    second.save(60)
    stages = {"train": {"steps": 5, "flops": [7, 8, 10]}}
    assert json.loads(path.read_text()) == {"stages": stages, "most_bytes": 100}


@pytest.mark.parametrize(
    ("step", "teacher", "student"), [(0, [], []), (1, [1], []), (3, [1, 2], []), (4, [1, 2], [5]), (9, [1, 2], [5, 6])]
)
def test_the_checkpoint_of_a_run_with_stages_may_lie_in_either(
    tmp_path: Path, step: int, teacher: list[int], student: list[int]
):
    log = CostLog(tmp_path / "cost.json", 0)
    for name, steps, flops in (("teacher", 3, [1, 2]), ("student", 20, [5, 6])):
        log.begin_stage(name, steps)
        log.flops[name] += flops
    log.save(None)
    resumed = CostLog(tmp_path / "cost.json", step)
    assert resumed.flops == {"teacher": teacher, "student": student}
    assert resumed.steps == {"teacher": 3, "student": 20}


@pytest.mark.parametrize(("before", "now", "peak"), [(None, None, None), (None, 5, 5), (5, None, 5)])
def test_unknown_memory_leaves_the_peak_as_it_is(tmp_path: Path, before: int | None, now: int | None, peak: int | None):
    path = tmp_path / "cost.json"
    CostLog(path, 0).save(before)
    CostLog(path, 0).save(now)
    assert json.loads(path.read_text()) == {"stages": {}, "most_bytes": peak}

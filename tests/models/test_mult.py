"""MulT: number of parameters, positions and masks worked out by hand, and independence of padding."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from anysubset.models.encoders import Steps
from anysubset.models.mult import MulT, MulTNetwork, last_valid, positions, visible_keys, zero_filled
from anysubset.models.network import shared_parameters
from anysubset.scenarios import all_scenarios

NAMES = ("text", "audio", "vision")
SIZES = {"text": 4, "audio": 2, "vision": 3}
TIMES = {"text": 4, "audio": 6, "vision": 3}
LENGTHS = {"text": (4, 2), "audio": (3, 6), "vision": (1, 3)}

close = partial(assert_close, rtol=0, atol=1e-9)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def small(**options: Any) -> MulTNetwork:
    torch.manual_seed(0)
    return MulTNetwork(SIZES, 1, **options).double().eval()


def sequences(filler: float = 0.0, extra: int = 0) -> dict[str, Steps]:
    """Two samples of unequal lengths; padded steps hold `filler`, and `extra` padded steps are appended."""
    generator = torch.Generator().manual_seed(1)
    made = {}
    for name in NAMES:
        values = torch.randn(2, TIMES[name], SIZES[name], generator=generator, dtype=torch.float64)
        values = nn.functional.pad(values, (0, 0, 0, extra))
        valid = torch.arange(TIMES[name] + extra) < torch.tensor(LENGTHS[name])[:, None]
        made[name] = Steps(values.where(valid[..., None], filler), valid)
    return made


def run(network: MulTNetwork, inputs: dict[str, Steps]) -> Tensor:
    output = network.decode({name: network.encode(name, *steps) for name, steps in inputs.items()})
    assert isinstance(output, Tensor)
    return output


# --------------------------------------------------------------------------------------------------- by hand


@pytest.mark.parametrize(("sizes", "expected"), [((300, 5, 20), 1_071_211), ((300, 74, 35), 1_073_731)])
def test_the_network_has_its_published_size(sizes: tuple[int, ...], expected: int):
    # X1
    with torch.device("meta"):
        assert count(MulTNetwork(dict(zip(NAMES, sizes, strict=True)), 1)) == expected


@pytest.mark.parametrize(
    ("queries", "keys", "expected"),
    [(3, 3, ["100", "110", "111"]), (2, 4, ["1110", "1111"]), (4, 2, ["11", "11", "11", "11"])],
)
def test_the_causal_mask_by_hand(queries: int, keys: int, expected: list[str]):
    # X2
    visible = visible_keys(torch.ones(1, queries, dtype=torch.bool), torch.ones(1, keys, dtype=torch.bool))
    assert ["".join(str(int(key)) for key in row) for row in visible[0]] == expected


def test_the_causal_mask_counts_valid_steps_only():
    # Two valid queries and three valid keys between padded ones: valid query i sees valid keys up to i + 1.
    queries, keys = torch.tensor([[False, True, False, True]]), torch.tensor([[True, False, True, True]])
    expected = [[1, 0, 1, 0], [1, 0, 1, 0], [1, 0, 1, 0], [1, 0, 1, 1]]
    assert visible_keys(queries, keys).int()[0].tolist() == expected
    assert visible_keys(queries, keys, causal=False).int()[0].tolist() == [[1, 0, 1, 1]] * 4


def test_positions_by_hand():
    # X3: [sin 1, sin .0001, cos 1, cos .0001]; a padded step has none.
    made = positions(torch.tensor([[1, 0]]), 4)
    assert_close(made, torch.tensor([[[0.841471, 0.0001, 0.540302, 1.0], [0.0] * 4]]), rtol=0, atol=1e-6)


def test_the_state_of_the_last_valid_step_is_read():
    states = torch.arange(8.0).view(2, 4, 1)
    valid = torch.tensor([[True, True, False, False], [False, True, False, True]])
    assert last_valid(states, valid).tolist() == [[1.0], [7.0]]


# --------------------------------------------------------------------------------------------------- padding


@torch.no_grad()
def test_padding_appended_to_all_modalities_does_not_change_the_output():
    # X4
    network = small()
    close(run(network, sequences(extra=3)), run(network, sequences()))


@torch.no_grad()
def test_a_sample_has_the_same_output_alone_as_in_a_batch_with_longer_ones():
    network, inputs = small(), sequences()
    together = run(network, inputs)
    for index in range(2):
        alone = {
            name: Steps(*(part[index : index + 1, : LENGTHS[name][index]] for part in steps))
            for name, steps in inputs.items()
        }
        close(run(network, alone), together[index : index + 1])


@torch.no_grad()
def test_padding_in_front_gives_the_same_output():
    network, inputs = small(), sequences()
    in_front = {}
    for name, (values, valid) in inputs.items():
        moved = [values[index].roll(TIMES[name] - LENGTHS[name][index], dims=0) for index in range(2)]
        in_front[name] = Steps(torch.stack(moved), valid.flip(1))
    close(run(network, in_front), run(network, inputs))


def test_the_values_of_padded_steps_do_not_change_outputs_or_gradients():
    runs = []
    for filler in (0.0, torch.nan, 1e30):
        network = small()
        output = run(network, sequences(filler))
        output.sum().backward()
        runs.append([output.detach(), *[p.grad for p in network.parameters() if p.grad is not None]])
    clean, *others = runs
    assert len(clean) == 1 + len(list(small().parameters()))
    assert all(tensor.isfinite().all() for tensor in clean)
    for other in others:
        assert all(torch.equal(one, two) for one, two in zip(clean, other, strict=True))


def test_a_sequence_of_padding_only_is_refused(fault):
    inputs = sequences()
    inputs["audio"].valid[1] = False
    assert fault(run, small(), inputs) == (
        "A sequence of 'audio' has only padded steps; leave the modality out of the sample."
    )


# -------------------------------------------------------------------------------------------------- scenarios


@torch.no_grad()
def test_a_missing_modality_is_zeros_on_the_valid_steps_of_the_first_present_modality():
    network, inputs = small(), sequences()
    for scenario in all_scenarios(NAMES):
        present = {name: inputs[name] for name in scenario}
        valid = inputs[scenario[0]].valid
        filled = {name: Steps(torch.zeros(*valid.shape, SIZES[name]), valid) for name in NAMES} | present
        filled = {name: Steps(steps.values.double(), steps.valid) for name, steps in filled.items()}
        assert torch.equal(run(network, present), run(network, filled))


@pytest.mark.parametrize(
    ("present", "filled"),
    [
        # Vectors have one step; a missing sequence has the steps of the first present sequence, if there is one.
        (("text",), {"audio": [[1]], "vision": [[0, 1]], "gaze": [[0, 1]]}),
        (("audio", "vision"), {"text": [[1, 1, 0]], "gaze": [[1, 1, 0]]}),
        (("audio",), {"text": [[1]], "vision": [[1]], "gaze": [[1]]}),
    ],
    ids=str,
)
def test_valid_steps_of_missing_modalities_by_hand(present: tuple[str, ...], filled: dict[str, list[list[int]]]):
    sizes = {"audio": 2, "text": 4, "vision": 3, "gaze": 1}
    valid = {"audio": [[1]], "text": [[0, 1]], "vision": [[1, 1, 0]]}
    features = {}
    for name in present:
        steps = torch.tensor(valid[name], dtype=torch.bool)
        features[name] = Steps(torch.ones(*steps.shape, sizes[name]), steps)
    made = zero_filled(features, sizes, vectors=["audio"])
    assert list(made) == list(sizes)
    for name, (values, steps) in made.items():
        assert values.shape == (*steps.shape, sizes[name])
        if name in present:
            assert made[name] is features[name]
        else:
            assert steps.int().tolist() == filled[name]
            assert not values.any()


@torch.no_grad()
def test_the_order_of_the_keys_does_not_matter():
    network, inputs = small(), sequences()
    assert torch.equal(run(network, inputs), run(network, dict(reversed(inputs.items()))))


def test_the_only_private_parameters_of_a_modality_are_its_projection():
    network = small()
    private = count(network) - sum(parameter.numel() for parameter in shared_parameters(network, NAMES))
    assert private == 30 * sum(SIZES.values())


@pytest.mark.parametrize("names", [NAMES[:2], (*NAMES, "gaze")])
@torch.no_grad()
def test_two_or_more_modalities_are_accepted(names: tuple[str, ...]):
    network = MulTNetwork(dict.fromkeys(names, 2), 3)
    output = network.decode({name: network.encode(name, torch.randn(2, 5, 2)) for name in names})
    assert output.shape == (2, 3)


def test_one_modality_and_no_layer_are_refused(fault):
    assert fault(MulT, {"text": 3}) == "MulT needs two modalities or more, not 1."
    assert fault(MulT, SIZES, layers=0) == "MulT needs one layer or more, not 0."


# --------------------------------------------------------------------------------------- the published program


@pytest.mark.parametrize("options", [{"causal": False}, {"readout": "last_slot"}, {"pad_by_zero": True}], ids=str)
@torch.no_grad()
def test_an_option_of_the_published_program_changes_the_output(options: dict[str, Any]):
    inputs = sequences()
    assert (run(small(**options), inputs) - run(small(), inputs)).abs().max() > 1e-6


@torch.no_grad()
def test_the_published_readout_takes_the_last_step_of_the_tensor():
    # Without padding, the last step is the last valid step.
    full = {name: Steps(values, torch.ones_like(valid)) for name, (values, valid) in sequences().items()}
    assert torch.equal(run(small(readout="last_slot"), full), run(small(), full))


@torch.no_grad()
def test_with_the_published_padding_the_output_depends_on_the_amount_of_padding():
    network = small(pad_by_zero=True)
    assert (run(network, sequences(extra=3)) - run(network, sequences())).abs().max() > 1e-6


def test_an_unknown_readout_is_refused(fault):
    assert fault(MulT, SIZES, readout="last").startswith("Unknown readout 'last'")


# ---------------------------------------------------------------------------------------------------- dropout


def test_dropout_acts_in_training_only():
    network, inputs = small(), sequences()
    assert torch.equal(run(network, inputs), run(network, inputs))
    network.train()
    assert not torch.equal(run(network, inputs), run(network, inputs))


def test_only_attention_to_text_has_dropout_of_attention_weights():
    network = MulT(SIZES)
    rates = {name: network.cross[name].layers[0].attention.dropout.p for name in network.cross}
    assert {name for name, rate in rates.items() if rate} == {"audio_from_text", "vision_from_text"}
    assert {rate for rate in rates.values() if rate} == {0.1}
    assert {stack.layers[0].attention.dropout.p for stack in network.own} == {0.1}

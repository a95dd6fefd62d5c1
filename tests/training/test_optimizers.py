from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from anysubset import api
from anysubset.errors import InputError
from anysubset.experiments.train_settings import TrainSettings
from anysubset.models.pretrained import TokenEncoder
from anysubset.training.optimizers import create_optimizer, parameters_by_rate, set_learning_rates


class Encoder(TokenEncoder):
    """A TokenEncoder whose model is a single layer, so that none has to be read from disk."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.frozen = False
        self.pretrained = nn.Linear(2, 1, bias=False)
        self.steps = nn.Linear(1, 1, bias=False)


class Network(nn.Module):
    """Parameters text.pretrained.weight, text.steps.weight, audio.weight, head.weight and head.bias."""

    def __init__(self) -> None:
        super().__init__()
        self.text = Encoder()
        self.audio = nn.Linear(2, 1, bias=False)
        self.head = nn.Linear(1, 1)


def one_weight(value: float) -> nn.Module:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, value)
    return layer


def after(gradients: list[float], **settings) -> list[float]:
    """Values of a weight that starts at 1, after steps with these gradients."""
    layer = one_weight(1.0)
    optimizer = create_optimizer(layer, TrainSettings(**{"lr": 0.1, "weight_decay": 0.0, **settings}))
    values = []
    for gradient in gradients:
        layer.weight.grad = torch.tensor([[gradient]])
        optimizer.step()
        values.append(layer.weight.item())
    return values


def rates(network: nn.Module, **settings) -> dict[str, float]:
    """Learning rate of each parameter at the top of the schedule."""
    optimizer = create_optimizer(network, TrainSettings(lr=1e-3, **settings))
    names = {parameter: name for name, parameter in network.named_parameters()}
    return {names[parameter]: group["peak"] for group in optimizer.param_groups for parameter in group["params"]}


# --------------------------------------------------------------------------------------- what a step of each does


def test_a_step_of_sgd_with_momentum_and_nesterov_by_hand():
    # Velocity v = m v + g, and w -= lr v; Nesterov's w -= lr (g + m v).
    assert after([1.0, 1.0], optimizer="sgd") == pytest.approx([0.9, 0.8])
    assert after([1.0, 1.0], optimizer="sgd", momentum=0.5) == pytest.approx([0.9, 0.75])
    assert after([1.0, 1.0], optimizer="sgd", momentum=0.5, nesterov=True) == pytest.approx([0.85, 0.675])


def test_weight_decay_is_added_to_the_gradient_except_for_adamw():
    # A gradient of 1 + 0.5 * 1.
    assert after([1.0], optimizer="sgd", weight_decay=0.5) == pytest.approx([0.85])
    # Adam's first step has the length of the learning rate, whatever the gradient.
    assert after([1.0], optimizer="adam", weight_decay=0.5) == pytest.approx([0.9])
    # The weight is multiplied by 1 - 0.1 * 0.5 first.
    assert after([1.0], optimizer="adamw", weight_decay=0.5) == pytest.approx([0.85])


def test_betas_are_the_decay_rates_of_adam():
    # Without memory each step is lr * g / |g|.
    assert after([1.0, -4.0], optimizer="adam", betas=[0.0, 0.0]) == pytest.approx([0.9, 1.0])
    # m = 0.5 * 0.5 * 1 + 0.5 * -4 = -1.75, over 1 - 0.25; v = 16.
    assert after([1.0, -4.0], optimizer="adam", betas=[0.5, 0.0])[1] == pytest.approx(0.9 + 0.1 * (1.75 / 0.75) / 4)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_amsgrad_divides_by_the_largest_mean_square_so_far(optimizer):
    # A gradient of 4 and then of 1: the second step is a quarter as long.
    assert after([4.0, 1.0], optimizer=optimizer, betas=[0.0, 0.0], amsgrad=True) == pytest.approx([0.9, 0.875])
    assert after([4.0, 1.0], optimizer=optimizer, betas=[0.0, 0.0]) == pytest.approx([0.9, 0.8])


@pytest.mark.parametrize(
    "settings", [{"optimizer": "adam"}, {"optimizer": "sgd"}, {"optimizer": "sgd", "momentum": 0.9}]
)
def test_the_state_of_an_optimizer_holds_only_tensors(settings):
    # A checkpoint stores tensors.
    layer = one_weight(1.0)
    optimizer = create_optimizer(layer, TrainSettings(**settings))
    layer.weight.grad = torch.ones(1, 1)
    optimizer.step()
    values = [value for state in optimizer.state_dict()["state"].values() for value in state.values()]
    assert all(isinstance(value, torch.Tensor) for value in values)


# ------------------------------------------------------------------------------------------------ learning rates


def test_a_pretrained_encoder_has_its_own_learning_rate_and_all_other_parameters_that_of_the_settings():
    expected = {"text.steps.weight": 1e-3, "audio.weight": 1e-3, "head.weight": 1e-3, "head.bias": 1e-3}
    assert rates(Network()) == {**expected, "text.pretrained.weight": 2e-5}


def test_the_first_pattern_that_matches_gives_the_rate():
    patterns = {"text.pretrained.*": 1e-6, "*.bias": 5e-3, "head.*": 2e-3}
    assert rates(Network(), rates=patterns) == {
        "text.pretrained.weight": 1e-6,
        "text.steps.weight": 1e-3,
        "audio.weight": 1e-3,
        "head.weight": 2e-3,
        "head.bias": 5e-3,
    }
    assert set(rates(Network(), rates={"*": 1e-2}).values()) == {1e-2}


def test_the_schedule_multiplies_the_rate_of_every_group():
    optimizer = create_optimizer(Network(), TrainSettings(lr=1e-3, rates={"head.*": 1e-2}))
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3, 2e-5, 1e-2]
    for _ in range(2):
        set_learning_rates(optimizer, 0.5)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([5e-4, 1e-5, 5e-3])


def test_frozen_parameters_are_left_out():
    network = Network()
    network.audio.requires_grad_(False)
    network.text.pretrained.requires_grad_(False)
    assert set(rates(network)) == {"text.steps.weight", "head.weight", "head.bias"}
    # The pattern of a group that a stage freezes is no mistake.
    assert set(rates(network, rates={"audio.*": 1e-4})) == {"text.steps.weight", "head.weight", "head.bias"}
    network.requires_grad_(False)
    with pytest.raises(InputError, match="No parameter of the model requires a gradient"):
        create_optimizer(network, TrainSettings())


def test_a_shared_parameter_is_in_one_group_and_matches_by_either_name():
    network = nn.ModuleDict({"first": one_weight(1.0)})
    network["second"] = network["first"]
    (default, tuned, chosen) = parameters_by_rate(network, TrainSettings(rates={"second.*": 1e-4}))
    assert (default[0], tuned[0]) == ([], [])
    assert chosen[1] == 1e-4
    assert_close(chosen[0], [network["first"].weight])


@pytest.mark.parametrize(
    ("patterns", "line"),
    [
        (
            {"txt.pretrained.*": 1e-4},
            "train.rates: 'txt.pretrained.*' matches no parameter. Names near it: text.pretrained.*",
        ),
        ({"head.wieght": 1e-4}, "train.rates: 'head.wieght' matches no parameter. Names near it: head.weight"),
        ({"zzz": 1e-4}, "matches no parameter. Names near it: audio.weight, head.bias, head.weight."),
        ({"head.*": 1e-4, "head.bias": 1e-5}, "train.rates: 'head.bias' changes nothing, since earlier patterns match"),
    ],
)
def test_a_pattern_without_parameters_is_refused(patterns, line):
    with pytest.raises(InputError) as caught:
        create_optimizer(Network(), TrainSettings(rates=patterns))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


# -------------------------------------------------------------------------------------------- the metric of Adam


def test_the_metric_of_adam_is_refused_with_sgd_before_anything_is_written(make_table_experiment, tmp_path: Path):
    experiment = make_table_experiment({"method.metric": "adam", "train.optimizer": "sgd"})
    with pytest.raises(InputError, match=r"method\.metric adam needs train\.optimizer adam or adamw; stage 'train' is"):
        api.fit(experiment, run=tmp_path / "run")
    assert not list((tmp_path / "run").rglob("*.safetensors"))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_only_the_part_of_a_blend_with_the_metric_needs_adam(make_table_experiment, tmp_path: Path):
    parts = [{"name": "gmd", "metric": "adam"}, "ensemble"]
    settings = {"method.name": "blend", "method.parts": parts, "method.width": 4, "train.steps": 4}
    fitting = {**settings, "train.stages": {"ensemble": {"optimizer": "sgd"}}}
    assert api.fit(make_table_experiment(fitting), run=tmp_path / "run").steps == 4
    with pytest.raises(InputError, match="stage 'train' is trained by SGD"):
        api.fit(
            make_table_experiment({**settings, "train.stages": {"gmd": {"optimizer": "sgd"}}}), run=tmp_path / "sgd"
        )

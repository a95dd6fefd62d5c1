"""Parameters that are replaced, copied, frozen or thawed after GMD was made: followed, or refused with the reason."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.testing import assert_close

from anysubset.errors import InputError
from anysubset.gradients import GMD, Streamed, by_index
from anysubset.gradients.jacobian import Jacobian
from anysubset.gradients.reach import live_modules
from anysubset.gradients.stored import Stored

both_engines = pytest.mark.parametrize("engine", [Stored, Streamed])

X, Y = torch.randn(16, 4, generator=torch.Generator().manual_seed(1)), torch.ones(16, 1)


class Model(nn.Module):
    """Two inputs, a body of two layers and a head that both use, and a head that only the case `own` uses."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8))
        self.head = nn.Linear(8, 1)
        self.own = nn.Linear(4, 1)

    def losses(self) -> dict[str, Tensor]:
        """Two cases that conflict."""
        return {
            "a": (self.head(self.body(X)) - Y - 3).pow(2).mean(),
            "b": (self.head(self.body(-X)) + Y + 3).pow(2).mean(),
        }

    def own_loss(self) -> Tensor:
        """A case that does not use the body."""
        return (self.own(X) - Y).pow(2).mean()

    def shared(self) -> list[nn.Parameter]:
        """Parameters that the cases share."""
        return [*self.body.parameters(), *self.head.parameters()]


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return Model()


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: one.grad for name, one in module.named_parameters() if one.grad is not None}


def expected(model: Model, shared: list[nn.Parameter]) -> dict[str, Tensor]:
    """Gradients of a GMD that was just made, for these shared parameters."""
    model.zero_grad()
    GMD(shared, rule=by_index).backward(model.losses())
    result = {name: value.clone() for name, value in gradients(model).items()}
    model.zero_grad()
    assert result
    return result


def assert_same(actual: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert set(actual) == set(wanted)
    for name, value in wanted.items():
        assert_close(actual[name], value, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------------------------- nothing is reached


def assigned(model: Model) -> Model:
    model.load_state_dict({name: value.clone() for name, value in model.state_dict().items()}, assign=True)
    return model


def assigned_other_values(model: Model) -> Model:
    torch.manual_seed(1)
    model.load_state_dict(Model().state_dict(), assign=True)
    return model


def overwritten(model: Model) -> Model:
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        return model.double().float()
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)


def weight_normalised(model: Model) -> Model:
    for layer in (model.body[0], model.body[2], model.head):
        layer.bias.requires_grad_(False)
        parametrizations.weight_norm(layer)
    return model


@both_engines
@pytest.mark.parametrize(
    "change",
    [assigned, assigned_other_values, overwritten, copy.deepcopy, weight_normalised, lambda model: Model()],
    ids=["assign", "assign other values", "overwrite", "deepcopy", "weight norm", "another model"],
)
def test_a_step_whose_losses_reach_no_shared_parameter_is_refused(
    model: Model, change: Callable[[Model], Model], engine: Callable[..., Jacobian]
):
    gmd = GMD(model.shared(), jacobian=engine)
    changed = change(model)
    with pytest.raises(InputError, match=r"No case reaches a shared parameter.*load_state_dict\(assign=True\)"):
        gmd.backward(changed.losses())
    assert not gradients(changed)


def test_a_copy_of_gmd_without_its_model_is_refused_and_with_its_model_it_works(model: Model):
    gmd = GMD(model.shared(), rule=by_index)
    wanted = expected(model, model.shared())
    with pytest.raises(InputError, match=r"copy\.deepcopy of the model or of GMD"):
        copy.deepcopy(gmd).backward(model.losses())
    other, its_gmd = copy.deepcopy((model, gmd))
    its_gmd.backward(other.losses())
    assert_same(gradients(other), wanted)
    gmd.backward(model.losses())
    assert_same(gradients(model), wanted)


def test_shared_parameters_that_no_loss_uses_are_refused(model: Model):
    with pytest.raises(InputError, match=r"No case reaches a shared parameter \(2 of them\)"):
        GMD(model.own.parameters()).backward(model.losses())


def test_diagnosing_a_step_without_shared_parameters_is_refused_too(model: Model):
    gmd = GMD(model.own.parameters())
    gmd.accumulate(model.losses())
    with pytest.raises(InputError, match="nothing can be decoupled"):
        gmd.measure()


# -------------------------------------------------------------------------------- a part is replaced or copied


def body_assigned(model: Model) -> None:
    torch.manual_seed(1)
    model.body[0].load_state_dict(nn.Linear(4, 8).state_dict(), assign=True)


def layer_weight_normalised(model: Model) -> None:
    parametrizations.weight_norm(model.body[2])


def layer_weight_normalised_by_hooks(model: Model) -> None:
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(model.body[0])


def body_copied(model: Model) -> None:
    model.body = copy.deepcopy(model.body)


def body_copied_while_the_old_one_lives(model: Model) -> None:
    KEEP.append(model.body)
    model.body = copy.deepcopy(model.body)


KEEP: list[nn.Module] = []


@both_engines
@pytest.mark.parametrize(
    "change",
    [
        body_assigned,
        layer_weight_normalised,
        layer_weight_normalised_by_hooks,
        body_copied,
        body_copied_while_the_old_one_lives,
    ],
)
def test_replacing_a_part_of_the_shared_parameters_is_refused(
    model: Model, change: Callable[[Model], None], engine: Callable[..., Jacobian]
):
    gmd = GMD(model.shared(), jacobian=engine)
    change(model)
    with pytest.raises(InputError, match=r"no longer part of the model.*make GMD again"):
        gmd.backward(model.losses())
    assert not gradients(model)
    GMD(model.shared()).backward(model.losses())
    KEEP.clear()


def test_a_case_that_is_computed_by_a_copy_of_the_model_is_refused(model: Model):
    gmd, other = GMD(model.shared()), copy.deepcopy(model)
    with pytest.raises(InputError, match="no longer part of the model"):
        gmd.backward({"a": model.losses()["a"], "b": other.losses()["b"]})


@both_engines
def test_a_layer_exchanged_for_one_of_another_shape_is_refused(model: Model, engine: Callable[..., Jacobian]):
    gmd = GMD(model.shared(), jacobian=engine)
    model.head = nn.Linear(8, 2, bias=False)
    with pytest.raises(InputError, match=r"no longer part of the model.*new layers"):
        gmd.backward(model.losses())


def test_a_case_of_another_model_of_the_same_shapes_is_refused_unless_one_module_holds_both(model: Model):
    other = Model()
    losses = {"a": model.losses()["a"], "b": other.losses()["b"]}
    with pytest.raises(InputError, match="no longer part of the model"):
        GMD(model.shared()).backward(losses)
    experts = nn.ModuleList([model, other])
    step = GMD(model.shared()).backward({"a": model.losses()["a"], "b": other.losses()["b"]})
    assert step.norms["b"] == 0
    assert len(experts) == 2


def test_a_parameter_outside_of_modules_that_no_case_reaches_is_refused_with_the_cure(model: Model):
    token = nn.Parameter(torch.ones(3))
    with pytest.raises(InputError, match="has to be registered in one"):
        GMD([*model.shared(), token]).backward(model.losses())
    model.token = token
    assert GMD([*model.shared(), token]).backward(model.losses()).cases == ("a", "b")


def test_a_layer_that_is_exchanged_after_it_was_unused_in_a_step_is_detected(model: Model):
    gmd = GMD([*model.shared(), *model.own.parameters()])
    gmd.backward(model.losses())  # `own` is not used; it is in the model.
    model.own = nn.Linear(4, 1, bias=False)
    with pytest.raises(InputError, match="no longer part of the model"):
        gmd.backward(model.losses())


# --------------------------------------------------------------------------------------------- what stays right


class Doubled(nn.Module):
    """Twice a parameter."""

    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


@contextmanager
def swapping() -> Iterator[None]:
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        yield
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


def converted_by_swapping(model: Model) -> None:
    with swapping():
        model.double().float()


@pytest.mark.parametrize(
    "change",
    [
        lambda model: parametrize.register_parametrization(model.body[0], "weight", Doubled()),
        lambda model: prune.l1_unstructured(model.body[0], "weight", 0.5),
        lambda model: parametrizations.spectral_norm(model.body[2]),
        lambda model: parametrizations.orthogonal(model.body[2]),
        lambda model: model.load_state_dict(model.state_dict()),
        lambda model: model.double().float(),
        converted_by_swapping,
    ],
    ids=["parametrize", "prune", "spectral norm", "orthogonal", "load", "cast", "swap"],
)
def test_changes_that_keep_the_parameters_are_followed(model: Model, change: Callable[[Model], object]):
    gmd = GMD(model.shared(), rule=by_index)
    change(model)
    model.eval()  # Spectral norm iterates in training.
    wanted = expected(model, model.shared())
    gmd.backward(model.losses())
    assert_same(gradients(model), wanted)


def test_a_case_may_leave_out_some_or_all_shared_parameters(model: Model):
    # The head alone, and a head of its own; norms are 0 for what reaches no shared parameter.
    gmd = GMD([*model.shared(), *model.own.parameters()], rule=by_index)
    losses = {**model.losses(), "head": model.head(torch.ones(2, 8)).sum(), "own": model.own_loss()}
    assert min(gmd.backward(losses).norms.values()) > 0
    for _ in range(2):
        step = GMD(model.shared(), rule=by_index).backward({"a": model.losses()["a"], "own": model.own_loss()})
        assert step.norms["own"] == 0
        assert step.coefficients == {"a": 1, "own": 1}


def test_one_case_and_a_case_without_samples_are_no_faults(model: Model):
    gmd = GMD(model.shared())
    assert gmd.backward({"a": model.losses()["a"]}).coefficients == {"a": 1}
    step = gmd.backward({"a": model.losses()["a"]}, {"a": 4, "b": 0})
    assert step.cases == ("a",)


# ------------------------------------------------------------------------------------------- frozen and thawed


def test_parameters_frozen_after_gmd_was_made_are_left_out_and_thawed_ones_take_part_again(model: Model):
    gmd = GMD(model.shared(), rule=by_index)
    everything = expected(model, model.shared())
    model.body[0].requires_grad_(False)
    rest = expected(model, [*model.body[2].parameters(), *model.head.parameters()])
    assert "body.0.weight" not in rest
    gmd.backward(model.losses())
    assert_same(gradients(model), rest)
    model.body[0].requires_grad_(True)
    model.zero_grad()
    gmd.backward(model.losses())
    assert_same(gradients(model), everything)


@both_engines
def test_parameters_that_are_thawed_after_gmd_was_made_take_part(model: Model, engine: Callable[..., Jacobian]):
    everything = expected(model, model.shared())
    model.body.requires_grad_(False)
    gmd = GMD(model.shared(), rule=by_index, jacobian=engine)
    gmd.backward(model.losses())
    assert set(gradients(model)) == {"head.weight", "head.bias"}
    model.zero_grad()
    model.body.requires_grad_(True)
    gmd.backward(model.losses())
    assert_same(gradients(model), everything)


def test_frozen_parameters_take_no_memory(model: Model):
    model.body.requires_grad_(False)
    gmd = GMD(model.shared())
    gmd.backward(model.losses())
    assert isinstance(gmd.jacobian, Stored)
    assert gmd.jacobian.buffer.shape == (2, 9)  # The head alone: 8 weights and a bias.


def test_a_parameter_frozen_between_the_loss_and_the_step_gets_no_gradient(model: Model):
    gmd = GMD(model.shared())
    losses = model.losses()
    model.body[0].requires_grad_(False)
    gmd.backward(losses)
    assert set(gradients(model)) == {"body.2.weight", "body.2.bias", "head.weight", "head.bias"}
    gmd.accumulate(model.losses())
    model.body[2].requires_grad_(False)
    model.zero_grad()
    gmd.decouple()
    assert set(gradients(model)) == {"head.weight", "head.bias"}


def test_freezing_everything_or_within_a_step_is_refused(model: Model):
    gmd = GMD(model.shared())
    gmd.accumulate(model.losses())
    model.body[0].requires_grad_(False)
    with pytest.raises(InputError, match="between two micro-batches"):
        gmd.accumulate(model.losses())
    model.requires_grad_(False)
    model.own.requires_grad_(True)
    gmd.measure()
    with pytest.raises(InputError, match=r"All 6 shared parameters are frozen.*thaw"):
        gmd.backward({"own": model.own_loss()})


# --------------------------------------------------------------------------------------------------- other kinds


def test_complex_shared_parameters_are_refused_and_private_ones_are_right():
    z = nn.Parameter(torch.tensor([1 + 2j]))
    with pytest.raises(InputError, match=r"complex64.*view_as_complex"):
        GMD([z])
    s = nn.Parameter(torch.tensor([3.0]))
    # Two losses s |z|^2 with rows of 5: no conflict. Torch's gradient of |z|^2 is 2 z, times s = 3.
    gmd = GMD([s], rule=by_index)
    step = gmd.backward({"a": (s * z.abs() ** 2).sum(), "b": (s * z.abs() ** 2).sum()})
    assert step.coefficients == {"a": 1, "b": 1}
    assert z.grad is not None
    assert z.grad.tolist() == [pytest.approx(6 + 12j)]


@pytest.mark.parametrize(
    ("shared", "message"),
    [
        (lambda model: model.named_parameters(), "not a tuple"),
        (lambda model: ["body"], "not a str"),
        (lambda model: iter([]), "at least one shared parameter"),
        (lambda model: model.head, r"a list of tensors, such as model.parameters\(\), not a Linear"),
        (lambda model: model.head.weight, r"a list of tensors, such as model.parameters\(\), not a Parameter"),
        (lambda model: None, r"a list of tensors, such as model.parameters\(\), not a NoneType"),
        (lambda model: [model.shared()], "not a list"),
        (lambda model: torch.optim.SGD(model.parameters()).param_groups, "not a dict"),
        (lambda model: nn.LazyLinear(3).parameters(), "run the model on a batch"),
    ],
)
def test_what_is_no_list_of_parameters_is_refused(model: Model, shared: Callable[[Model], object], message: str):
    with pytest.raises(InputError, match=message):
        GMD(shared(model))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda loss: torch.tensor(loss.item(), requires_grad=True), "'b' is detached from the model"),
        (lambda loss: loss.detach().requires_grad_(), "'b' is detached from the model"),
        (lambda loss: loss.to("meta"), "'b' is on the device 'meta'"),
    ],
)
def test_a_loss_without_the_model_is_refused(model: Model, change: Callable[[Tensor], Tensor], message: str):
    losses = model.losses()
    with pytest.raises(InputError, match=message):
        GMD(model.shared()).backward({"a": losses["a"], "b": change(losses["b"])})


def test_a_module_whose_constructor_failed_is_passed_over():
    half_made = nn.Linear.__new__(nn.Linear)  # As it stays in memory where a constructor refuses its arguments.
    whole = nn.Linear(1, 1)
    modules = {*map(id, live_modules())}
    assert id(whole) in modules
    assert id(half_made) not in modules

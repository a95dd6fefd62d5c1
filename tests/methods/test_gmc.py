"""GMC as a method: its loss by hand, the parameters that each objective trains, and decoupling of its cases."""

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from anysubset.batches import Batch, Observed
from anysubset.errors import InputError
from anysubset.methods.creation import create_method
from anysubset.methods.gmc import GMC
from anysubset.methods.method import Step
from anysubset.methods.update import Mean, fill_gradients
from anysubset.models.encoders import Steps
from anysubset.models.gmc import Code, contrast
from anysubset.models.network import Network
from anysubset.scenarios import Scenario, all_scenarios
from anysubset.tasks.prediction import Prediction, Stream

NAMES = ("text", "audio", "vision")
FULL = Step(cases=(NAMES,))
PRESENCE: list[Scenario] = [NAMES, NAMES, ("text",), ("audio", "vision"), NAMES]


def task_of(kind: str = "sequence", modalities: tuple[str, ...] = NAMES) -> Prediction:
    return Prediction(modalities, dict.fromkeys(modalities, Stream(kind, 3)))


def make(seed: int = 0, **options: object) -> GMC:
    torch.manual_seed(seed)
    return GMC(task_of(), steps=4, **options).double()  # type: ignore[arg-type]


def batch_of(presence: list[Scenario]) -> Batch:
    generator = torch.Generator().manual_seed(1)
    inputs = {}
    for name in NAMES:
        values = torch.randn(len(presence), 4, 3, generator=generator, dtype=torch.float64)
        having = torch.tensor([index for index, scenario in enumerate(presence) if name in scenario])
        if len(having):
            valid = torch.arange(4) < 1 + having[:, None] % 4
            inputs[name] = Observed(values[having], having, valid)
    target = torch.linspace(-2, 2, len(presence), dtype=torch.float64)
    return Batch(inputs, target, tuple(map(str, range(len(presence)))))


class FixedCodes(Network):
    """A network with the codes of reference case C1, (1, 0) and (0, 1) for every modality; it predicts 1."""

    def __init__(self) -> None:
        super().__init__(NAMES)
        self.offset = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def encode(self, modality: str, x: Tensor, valid: Tensor | None = None) -> Code:
        code = torch.eye(2, dtype=torch.float64) + self.offset
        return Code(code, Steps(x, torch.ones(x.shape[:2], dtype=torch.bool)))

    def decode(self, features: Mapping[str, Code]) -> Tensor:
        return self.head(self.joint_code(features))

    def head(self, code: Tensor) -> Tensor:
        return torch.ones(len(code), 1, dtype=torch.float64) + self.offset

    def joint_code(self, features: Mapping[str, Code]) -> Tensor:
        return features["text"].code


def test_the_loss_by_hand():
    # C4: three contrastive losses of .068918, and the mean of |1 - .5| and |1 - 1|.
    method = make()
    method.network = FixedCodes()  # type: ignore[assignment]
    batch = batch_of([NAMES, NAMES])
    batch = Batch(batch.inputs, torch.tensor([0.5, 1.0], dtype=torch.float64), batch.ids)
    gradients = fill_gradients(method, Mean(method), [batch], FULL)
    assert gradients is not None
    values = gradients.means()
    assert values["text+audio+vision"] == pytest.approx(0.25)
    assert values["contrast:audio"] == pytest.approx(0.068918, abs=1e-6)
    assert {objective.weight for objective in gradients.objectives.values()} == {1.0}
    assert sum(values.values()) == pytest.approx(0.456753, abs=2e-6)


def test_gmc_is_trained_on_complete_samples_only():
    method = make()
    assert method.draw(torch.Generator()) == (NAMES,)
    objectives = method.objectives(FULL)
    assert list(objectives) == ["text+audio+vision", "contrast:text", "contrast:audio", "contrast:vision"]
    assert {objective.needs for objective in objectives.values()} == {NAMES}
    assert [objective.case for objective in objectives.values()] == [True, False, False, False]
    incomplete = batch_of([("text", "audio"), ("vision",)])
    assert method.losses(incomplete, FULL) == {}
    assert fill_gradients(method, Mean(method), [incomplete], FULL) is None


def test_the_head_is_trained_on_joint_codes_and_the_encoders_by_the_contrastive_loss():
    reached = {}
    for part in ("text+audio+vision", "contrast:audio"):
        method = make()
        method.losses(batch_of(PRESENCE), FULL)[part].backward()
        reached[part] = {name.split(".")[1] for name, p in method.named_parameters() if p.grad is not None}
    assert reached == {
        "text+audio+vision": {"joint", "joint_head", "projection", "head"},
        "contrast:audio": {"encoders", "joint", "joint_head", "projection"},
    }


def test_with_a_single_complete_sample_the_contrastive_loss_is_0_and_the_task_loss_is_not():
    method = make().eval()
    losses = method.losses(batch_of([NAMES, ("text",)]), FULL)
    assert losses["contrast:text"].item() == 0
    assert losses["text+audio+vision"].item() > 0


@pytest.mark.parametrize("cases", ["full", "all", "missing=1"])
def test_the_full_case_and_the_contrastive_losses_use_the_same_joint_code(cases: str, monkeypatch: pytest.MonkeyPatch):
    method, batch = make(cases=cases).eval(), batch_of(PRESENCE)
    # Samples 0, 1 and 4 are complete.
    complete = {name: Observed(x.values, x.indices, x.valid) for name, x in batch_of([NAMES] * 5).inputs.items()}
    features = {name: encoded.values for name, encoded in method.network.features(complete).items()}
    joint = method.network.joint_code(features)[[0, 1, 4]]
    expected = {f"contrast:{name}": contrast(joint, features[name].code[[0, 1, 4]]) for name in NAMES}
    if cases != "missing=1":
        output = method.network.decode(features)[[0, 1, 4]]
        expected["text+audio+vision"] = (output[:, 0] - batch.target[[0, 1, 4]]).abs().mean()
    computed = []
    joint_code = method.network.joint_code
    monkeypatch.setattr(method.network, "joint_code", lambda codes: computed.append(codes) or joint_code(codes))
    losses = method.losses(batch, Step(cases=method.draw(torch.Generator())))
    assert len(computed) == 1
    assert len(losses) == {"full": 4, "all": 10, "missing=1": 6}[cases]
    for name, value in expected.items():
        assert_close(losses[name], value, rtol=0, atol=1e-9)


def test_the_temperature_changes_the_contrastive_loss():
    batch = batch_of(PRESENCE)
    values = [make(temperature=t).eval().losses(batch, FULL)["contrast:text"].item() for t in (0.3, 1.0)]
    assert values[0] != pytest.approx(values[1])


def test_decoupling_acts_on_the_cases_and_adds_the_contrastive_losses():
    torch.manual_seed(0)
    options = {"gradients": "gmd", "cases": "all", "steps": 4}
    method, update = create_method("gmc", task_of(), options, torch.Generator().manual_seed(0))
    method = method.double().eval()  # Dropout would draw twice.
    batch = batch_of(PRESENCE)
    step = Step(cases=method.draw(torch.Generator()))
    assert step.cases == tuple(all_scenarios(NAMES))
    gradients = fill_gradients(method, update, [batch], step)
    assert gradients is not None
    assert gradients.decoupling is not None
    coefficients = gradients.decoupling.coefficients
    assert len(coefficients) == 7
    filled = {name: parameter.grad for name, parameter in method.named_parameters()}
    method.zero_grad()
    losses = method.losses(batch, step)
    cases = torch.stack([coefficients[name] * losses[name] for name in coefficients]).sum() / 7
    (cases + torch.stack([losses[f"contrast:{name}"] for name in NAMES]).sum()).backward()
    for name, parameter in method.named_parameters():
        assert_close(filled[name], parameter.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("build", "line"),
    [
        (lambda: GMC(task_of("vector")), "GMC is for sequences; 'text' is of kind vector."),
        (lambda: GMC(task_of(modalities=("text",))), "so it needs two or more; these data have one"),
        (lambda: make(temperature=0.0), "method.temperature must be above 0, not 0.0"),
        (lambda: GMC(task_of(), steps=0), "method.steps must be at least 1, not 0"),
    ],
)
def test_wrong_input_is_refused(build: Callable[[], GMC], line: str):
    with pytest.raises(InputError, match=line):
        build()


def test_gmc_pools_the_batch():
    assert make().pools_batch()

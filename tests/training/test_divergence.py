"""Trainings whose numbers are no longer finite end in one line, and nothing that is not finite is written."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.methods.small import SMALL
from torch import Tensor

import anysubset
from anysubset import cli
from anysubset.errors import InputError
from anysubset.estimators import AnySubsetRegressor
from anysubset.experiments.files import write_experiment
from anysubset.experiments.settings import Experiment
from anysubset.methods.classical import ClassicalMethod
from anysubset.methods.creation import method_options
from anysubset.methods.dynamic_sharing import DynamicSharing
from anysubset.methods.method import Objective
from anysubset.methods.table import METHODS
from anysubset.system import tensor_file
from anysubset.tasks.segmentation import Segmentation
from anysubset.training.divergence import DivergedError
from anysubset.volumes.phantom import write_phantoms

Fit = Callable[..., str]


def write_table(path: Path, scale: float = 1.0) -> Path:
    """40 samples with two modalities, 24 of them for training; `scale` multiplies the test samples."""
    generator = np.random.default_rng(0)
    y = generator.normal(size=40).astype(np.float32)
    factor = np.where(np.arange(40) < 32, 1, scale)[:, None].astype(np.float32)
    np.savez(
        path,
        y=y,
        a=(generator.normal(size=(40, 3)).astype(np.float32) + y[:, None]) * factor,
        b=generator.normal(size=(40, 2)).astype(np.float32) * factor,
        id=np.array([f"s{index}" for index in range(40)]),
        split=np.array(["train"] * 24 + ["val"] * 8 + ["test"] * 8),
    )
    return path


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    return {
        "data.name": "table",
        "data.root": str(write_table(tmp_path / "table.npz")),
        "train.steps": 8,
        "train.batch": 8,
        "train.validate_every": 2,
        "train.checkpoint_every": 1,
        "train.log_every": 1,
        "train.device": "cpu",
    }


def message_of(settings: Experiment | Mapping[str, Any], folder: Path, **options: Any) -> str:
    """The message of a training that diverges, in one line."""
    with pytest.raises(DivergedError) as caught:
        anysubset.fit(settings, run=folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_sound(folder: Path, names: tuple[str, ...]) -> None:
    """Checkpoints of these names exist, and nothing in the folder is NaN or infinite."""
    assert {path.stem for path in (folder / "checkpoints").glob("*.safetensors")} == set(names)
    for name in names:
        tensors, facts = tensor_file.load(folder / "checkpoints" / f"{name}.safetensors")
        assert len(tensors) > 4
        assert all(tensor.isfinite().all() for tensor in tensors.values() if tensor.is_floating_point())
        json.dumps(facts, allow_nan=False)
    if (folder / "metrics.jsonl").exists():
        assert "NaN" not in (folder / "metrics.jsonl").read_text()
        assert "Infinity" not in (folder / "metrics.jsonl").read_text()
    if (folder / "decoupling.npz").exists():
        with np.load(folder / "decoupling.npz") as stored:
            assert np.isfinite(stored["gramian"]).all()


@pytest.fixture(scope="module")
def tiny_volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two patients for training and one for validation, whose modalities have the names of the toy tasks. Read-only."""
    root = tmp_path_factory.mktemp("volumes") / "patients"
    write_phantoms(root, counts={"train": 2, "val": 1}, size=(16, 16, 16))
    for name, renamed in {"t1": "text", "t2": "audio", "flair": "vision"}.items():
        for path in root.glob(f"*/*_{name}.nii.gz"):
            path.rename(path.with_name(path.name.replace(f"_{name}.", f"_{renamed}.")))
    return root


# Methods with large networks, which take seconds.
SLOW = {"acn", "gmc", "rfnet", "smunet"}


# Methods with a learning rate.
TRAINED = [name for name, row in METHODS.items() if not issubclass(row.method, ClassicalMethod)]


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in TRAINED]
)
def test_a_rate_that_is_much_too_high_ends_every_method_in_one_line(
    method, tiny_volumes, make_experiment, make_table_experiment, tmp_path
):
    on_tables = METHODS[method].method.fits != (Segmentation,)
    make = make_table_experiment if on_tables else make_experiment
    own = {f"method.{name}": value for name, value in SMALL.get(method, {}).items()}
    if "score" in method_options(method):
        own["method.score"] = "laplace"  # For numbers.
    volumes = {"data.root": str(tiny_volumes), "data.modalities": ["text", "audio", "vision"], "train.batch": 1}
    data = {} if on_tables else volumes
    tiny = make({"method.name": method, **own, **data, "train.lr": 1e30})
    message = message_of(tiny, tmp_path / "run")
    assert message.startswith("Training diverged at step 2")
    assert "a lower train.lr (now 1e+30) or train.clip 1" in message
    assert "latest.safetensors" in message
    assert_sound(tmp_path / "run", ("latest",))


def test_the_rates_of_the_stages_are_named(settings, tmp_path):
    own = {"method.name": "mmin", "method.width": 8, "train.stages": {"teacher": {"lr": 1e30}}}
    message = message_of({**settings, **own}, tmp_path / "run")
    assert "(stage " in message
    assert "a lower train.lr (now 0.0008, train.stages.teacher.lr 1e+30) or train.clip 1" in message
    assert_sound(tmp_path / "run", ("latest",))
    # It is no different when it is resumed.
    assert message_of({**settings, **own}, tmp_path / "run", resume=True) == message


def test_a_rate_beyond_float32_in_the_optimizer_ends_in_one_line(settings, tmp_path):
    message = message_of({**settings, "train.lr": 1e38}, tmp_path / "run")
    assert "at step 1: the update of the weights is beyond the largest number" in message
    assert "no weights were saved yet" in message


def test_a_command_ends_with_exit_code_2_and_a_volume_is_no_exception(make_experiment, tmp_path, capsys):
    write_experiment(make_experiment({"train.lr": 1e30, "method.name": "sharing"}), tmp_path / "tiny.yaml")
    assert cli.main(["fit", str(tmp_path / "tiny.yaml"), "--run", str(tmp_path / "run")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith("anysubset: Training diverged at step 2")
    assert_sound(tmp_path / "run", ("latest",))


class Breaking(DynamicSharing):
    """Breaks one thing from step 5 on."""

    broken = ""

    def losses(self, batch: Any, step: Any) -> dict[str, Tensor]:
        losses = super().losses(batch, step)
        if step.number >= 4 and self.broken == "loss":
            losses["a+b"] = losses["a+b"] * torch.nan
        return losses

    def extra_objectives(self, step: Any) -> Any:
        return {"extra": Objective(weight=0.5)} if self.broken in ("extra", "extra gradient") else {}

    def extra_losses(self, features: Any, batch: Any, step: Any) -> dict[str, Tensor]:
        total = torch.stack([parameter.sum() for parameter in self.network.parameters()]).sum()
        if step.number >= 4 and self.broken == "extra gradient":
            total = (total - total.detach()).abs().sqrt()  # 0, with an infinite slope.
        return {"extra": total + torch.inf if step.number >= 4 and self.broken == "extra" else total * 1e-3}

    def finish(self, step: Any) -> None:
        weight = next(self.network.parameters())
        if step.number >= 4 and self.broken == "gradient":
            assert weight.grad is not None
            weight.grad[0] = torch.inf
        if step.number >= 4 and self.broken == "weight":
            with torch.no_grad():
                next(iter(self.network.shared_parameters())).fill_(torch.nan)


BROKEN = {
    "loss": "the loss",
    "extra": "the loss of extra is inf",
    "extra gradient": "the gradient of a, b, a+b, extra is NaN or infinite in network.",
    "gradient": "the gradient of a, b, a+b is NaN or infinite in network.",
    "weight": "became NaN or infinite",
}


@pytest.mark.parametrize("update", ["mean", "gmd"])
@pytest.mark.parametrize("broken", BROKEN)
def test_every_kind_of_number_is_checked_under_every_update(broken, update, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(Breaking, "broken", broken)
    changed = {**settings, "method.gradients": update, "train.validate_every": 4}
    message = message_of(changed, tmp_path / "run", method=Breaking)
    assert message.startswith("Training diverged at step 5")
    assert BROKEN[broken] in message
    assert ("a+b" in message) or broken == "extra" or broken == "weight"
    assert_sound(tmp_path / "run", ("best", "latest"))
    # The weights of step 4 are kept, and a training goes on from them.
    assert tensor_file.read_facts(tmp_path / "run" / "checkpoints" / "best.safetensors")["step"] == 4
    monkeypatch.setattr(Breaking, "broken", "" if "extra" not in broken else broken)
    if "extra" not in broken:
        assert anysubset.fit(changed, run=tmp_path / "run", method=Breaking, resume=True).steps == 8


def run_with(settings: Mapping[str, Any], folder: Path, change: Callable[[Tensor], Tensor]) -> Path:
    """A trained run whose selected weights are changed afterwards."""
    anysubset.fit(settings, run=folder)
    best = folder / "checkpoints" / "best.safetensors"
    tensors, facts = tensor_file.load(best)
    tensor_file.save(best, {name: change(tensor) for name, tensor in tensors.items()}, facts)
    return folder


def test_weights_that_are_not_finite_are_refused_by_every_command(settings, tmp_path, capsys):
    run = run_with(settings, tmp_path / "run", lambda tensor: tensor * torch.nan)
    for command in (
        ["evaluate", str(run), "--split", "test"],
        ["predict", str(run), settings["data.root"], "--output", str(tmp_path / "out")],
        ["diagnose", str(run)],
    ):
        assert cli.main(command) == 2
        errors = capsys.readouterr().err.splitlines()
        assert len(errors) == 1
        assert re.search("best.safetensors holds .* that are NaN or infinite", errors[0])
    assert not (run / "scores.csv").exists()
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_is_not_finite_is_not_resumed(settings, tmp_path):
    run = tmp_path / "run"
    anysubset.fit({**settings, "train.steps": 2}, run=run)
    latest = run / "checkpoints" / "latest.safetensors"
    tensors, facts = tensor_file.load(latest)
    name = next(name for name in tensors if name.endswith("exp_avg"))
    tensor_file.save(latest, {**tensors, name: tensors[name] + torch.inf}, {**facts, "finished": False, "step": 1})
    with pytest.raises(InputError, match=r"latest.safetensors holds .* that are NaN or infinite, in .*exp_avg of"):
        anysubset.fit({**settings, "train.steps": 2}, run=run, resume=True)


def test_samples_without_a_finite_prediction_are_named_and_the_others_are_written(settings, tmp_path, capsys):
    # Values of the 8 test samples are about 1e38, so that sums over them overflow.
    run = tmp_path / "run"
    anysubset.fit(settings, run=run)
    root = write_table(tmp_path / "far.npz", scale=1e38)
    assert cli.main(["predict", str(run), str(root), "--output", str(tmp_path / "out")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert "8 of 40 samples are not finite (NaN or infinite): 's32' (from a+b), 's33' (from a+b)" in errors[0]
    rows = (tmp_path / "out" / "predictions.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["id", *(f"s{index}" for index in range(32))]
    assert "nan" not in (tmp_path / "out" / "predictions.csv").read_text()
    assert cli.main(["evaluate", str(run), "--split", "test", "--data.root", str(root)]) == 2
    assert "8 of 8 samples are not finite" in capsys.readouterr().err
    assert not (run / "scores.csv").exists()


def test_the_estimators_say_what_to_set():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(30, 3)).astype(np.float32), generator.normal(size=30)
    with pytest.raises(InputError, match=r"^Training diverged: .* Set a lower lr \(now 1e\+30\)"):
        AnySubsetRegressor(steps=6, batch=8, lr=1e30, random_state=0, device="cpu").fit({"a": x, "b": x + 1}, y)
    model = AnySubsetRegressor(steps=2, batch=8, random_state=0, device="cpu").fit({"a": x, "b": x + 1}, y)
    model.weights_ = {name: tensor + torch.inf for name, tensor in model.weights_.items()}
    for predict in (model.predict, lambda inputs: model.scenario_scores(inputs, y)):
        with pytest.raises(InputError, match="predictions for 30 samples are NaN or infinite, the first for sample 0"):
            predict({"a": x, "b": x + 1})

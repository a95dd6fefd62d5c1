import json
import math
import signal
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from anysubset.datasets.dataset import Dataset
from anysubset.datasets.table import create_dataset
from anysubset.errors import InputError
from anysubset.experiments.files import read_experiment
from anysubset.experiments.settings import Experiment
from anysubset.experiments.train_settings import TrainSettings
from anysubset.gradients import Stored, sequential
from anysubset.methods.creation import method_of
from anysubset.methods.method import Method
from anysubset.methods.update import Update
from anysubset.scoring.scores import Score
from anysubset.system import tensor_file
from anysubset.system.run_folder import read_record
from anysubset.training import loop as training
from anysubset.training.checkpoint import Progress, State
from anysubset.training.decoupling_log import Decouplings
from anysubset.training.loop import COUNTED, lay_out, train
from anysubset.training.run import Run
from anysubset.training.step import StageTraining, train_step
from anysubset.volumes.phantom import write_phantoms

# The methods on the network of the task; tests/methods/test_contract.py asks the same of all.
ON_TASK_NETWORK = ("gmd", "sharing", "dropout", "full", "ensemble")

Show = Callable[[Iterable[int], int], Iterable[int]]

UNSCALED = torch.amp.GradScaler("cpu", enabled=False)


def stage_of(
    method: Method,
    update: Update,
    dataset: Dataset,
    run: Run,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler = UNSCALED,
) -> StageTraining:
    """The only stage of a method, under way, with an optimizer and a scaler of the test's own."""
    (stage,) = method.stages
    settings = run.experiment.train
    for group in optimizer.param_groups:
        group.setdefault("peak", settings.lr)
    return StageTraining(stage, settings, 0, State(method, optimizer, scaler, torch.Generator()), update, dataset, run)


def all_steps(steps: Iterable[int], done: int, *_: object) -> Iterable[int]:
    return steps


def go(experiment: Experiment, folder: Path, show: Show = all_steps, resume: bool = False) -> Progress:
    """Train as `anysubset fit` does, without a terminal."""
    dataset = create_dataset(experiment.data, experiment.task)
    torch.manual_seed(experiment.seed)
    generator = torch.Generator().manual_seed(experiment.seed)
    method, update = method_of(experiment.method, dataset.task, generator)
    with Run(folder, experiment, resume) as run:
        return train(method, update, dataset, run, generator, show=show)


def stop_at(step: int) -> Show:
    """Send Ctrl-C right before a step."""

    def show(steps: Iterable[int], done: int, *_: object) -> Iterator[int]:
        for number in steps:
            if number == step:
                signal.raise_signal(signal.SIGINT)
            yield number

    return show


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same_run(folder: Path, other: Path, decoupled: bool = True) -> None:
    """Every weight, moment, random state and logged number, bit for bit."""
    for name in ("best", "latest"):
        tensors, facts = tensor_file.load(folder / "checkpoints" / f"{name}.safetensors")
        other_tensors, other_facts = tensor_file.load(other / "checkpoints" / f"{name}.safetensors")
        assert len(tensors) > 50
        assert tensors.keys() == other_tensors.keys()
        assert [key for key in tensors if not torch.equal(tensors[key], other_tensors[key])] == []
        assert facts == other_facts
    assert (folder / "metrics.jsonl").read_text() == (other / "metrics.jsonl").read_text()
    stages, other_stages = (json.loads((run / "cost.json").read_text())["stages"] for run in (folder, other))
    assert stages == other_stages
    if not decoupled:
        assert not (folder / "decoupling.npz").exists()
        return
    with np.load(folder / "decoupling.npz") as stored, np.load(other / "decoupling.npz") as other_stored:
        names = {"step", "cases", "case", "coefficients", "norms", "cosines", "gramian", "copies"}
        assert names == set(stored) == set(other_stored)
        for key in stored:
            np.testing.assert_array_equal(stored[key], other_stored[key])


# ---------------------------------------------------------------------------------------- learning rate


def test_the_optimizer_has_the_learning_rate_of_the_schedule(make_experiment, tmp_path):
    go(make_experiment({"train.lr": 0.01, "train.schedule": "cosine", "train.steps": 2}), tmp_path / "run")
    # By hand: 0.01, then 0.01 (1 + cos(90 degrees)) / 2 = 0.005.
    assert [line["lr"] for line in log_of(tmp_path / "run") if "lr" in line] == pytest.approx([0.01, 0.005])


def test_adamw_decays_the_weights_and_not_the_gradient(make_experiment, tmp_path):
    weights = {}
    for name in ("adam", "adamw"):
        settings = {"train.optimizer": name, "train.lr": 0.01, "train.weight_decay": 10.0, "train.steps": 1}
        go(make_experiment({**settings, "train.schedule": "constant"}), tmp_path / name)
        weights[name], _ = tensor_file.load(tmp_path / name / "checkpoints/best.safetensors")
    ones = [key for key, value in weights["adam"].items() if "norm.weight" in key]
    assert len(ones) > 5
    for key in ones:
        # By hand, from 1: Adam's first step is 0.01 whatever the gradient; AdamW's comes on top of a tenth less.
        assert ((weights["adam"][key] - 1).abs() <= 0.0101).all()
        assert ((weights["adamw"][key] - 0.9).abs() <= 0.0101).all()


# -------------------------------------------------------------------------------------- stop and go on


@pytest.fixture(scope="module")
def undisturbed(make_experiment, tmp_path_factory) -> tuple[Experiment, Path]:
    """Seven steps of GMD on two random cases a step; a tour through the five patients ends within one."""
    experiment = make_experiment(
        {
            "train.steps": 7,
            "train.batch": 3,
            "train.validate_every": 3,
            "train.checkpoint_every": 4,
            "method.name": "gmd",
            "method.cases": "random=2",
        }
    )
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    done = go(experiment, folder)
    assert (done.step, done.finished) == (7, True)
    return experiment, folder


@pytest.mark.parametrize("step", [4, 5, 7])
def test_a_run_stopped_by_ctrl_c_and_resumed_ends_with_the_same_bits(undisturbed, tmp_path, step):
    experiment, folder = undisturbed
    # At a checkpoint, after one, and after the last step, when the run is finished: the caller would go on to scoring,
    # or to another run.
    with pytest.raises(KeyboardInterrupt):
        go(experiment, tmp_path / "run", stop_at(step))
    # The current step was finished and saved.
    assert tensor_file.load(tmp_path / "run/checkpoints/latest.safetensors")[1]["step"] == step
    done = go(experiment, tmp_path / "run", resume=True)
    assert (done.step, done.finished) == (7, True)
    assert_same_run(tmp_path / "run", folder)


def test_a_run_stopped_three_times_ends_with_the_same_bits(undisturbed, tmp_path):
    experiment, folder = undisturbed
    for step in (1, 3, 6):
        with pytest.raises(KeyboardInterrupt):
            go(experiment, tmp_path / "run", stop_at(step), resume=True)
    go(experiment, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", folder)


def test_steps_since_the_last_checkpoint_are_done_again_to_the_same_bits(undisturbed, tmp_path):
    experiment, folder = undisturbed

    def crash(steps: Iterable[int], done: int, *_: object) -> Iterator[int]:
        for step in steps:
            if step == 7:
                raise RuntimeError("The power is gone.")
            yield step

    with pytest.raises(RuntimeError, match="power"):
        go(experiment, tmp_path / "run", crash)
    # Checkpoints are due every four steps; 5 and 6 were logged, and step 6 was validated.
    assert tensor_file.load(tmp_path / "run/checkpoints/latest.safetensors")[1]["step"] == 4
    assert log_of(tmp_path / "run")[-1]["step"] == 6
    done_again = []

    def show(steps: Iterable[int], done: int, *_: object) -> Iterator[int]:
        for step in steps:
            done_again.append(step)
            yield step

    go(experiment, tmp_path / "run", show, resume=True)
    assert done_again == [5, 6, 7]
    assert_same_run(tmp_path / "run", folder)


def test_a_second_ctrl_c_stops_within_the_step(make_experiment, tmp_path):
    def show(steps: Iterable[int], done: int, *_: object) -> Iterator[int]:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        yield from steps

    with pytest.raises(KeyboardInterrupt):
        go(make_experiment(), tmp_path / "run", show)
    assert not (tmp_path / "run/checkpoints/latest.safetensors").exists()


def test_the_former_handler_of_ctrl_c_is_restored(make_experiment, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    go(make_experiment({"train.steps": 1}), tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) is before


def test_a_finished_run_resumed_does_nothing(undisturbed):
    experiment, folder = undisturbed
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "events" not in path.name}

    def none(steps: Iterable[int], done: int, *_: object) -> Iterable[int]:
        raise AssertionError("A finished run was trained.")

    done = go(experiment, folder, none, resume=True)
    assert (done.step, done.finished) == (7, True)
    assert len(done.validation) == 15
    assert before == {path: path.read_bytes() for path in before}


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(make_experiment, tmp_path):
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        go(make_experiment({"seed": seed, "train.steps": 1}), tmp_path / name)
    first, again, other = (log_of(tmp_path / name) for name in ("first", "again", "other"))
    assert first == again
    assert first[0]["losses"] != other[0]["losses"]


def test_a_stage_ends_when_validation_does_not_improve_also_if_it_is_resumed(make_table_experiment, tmp_path):
    settings = {"method.name": "blend", "method.width": 8, "train.steps": 80, "train.validate_every": 1}
    experiment = make_table_experiment({**settings, "train.patience": 2, "train.lr": 0.3})
    done = go(experiment, tmp_path / "whole")
    first, second = done.stage_steps["sharing"], done.stage_steps["ensemble"]
    assert done.step == first + second
    assert first < 40
    assert done.finished
    log = [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    scores = [entry["validation"] for entry in log if "validation" in entry and entry["step"] <= first]
    # By hand: the last two validations of the stage are not better than the best one before, and no earlier two are.
    assert scores.index(min(scores)) == first - 3
    cost = json.loads((tmp_path / "whole/cost.json").read_text())["stages"]
    assert [cost[name]["steps"] for name in ("sharing", "ensemble")] == [first, second]
    for step in (first, first + 1):  # At the end of the first stage, and in the second.
        with pytest.raises(KeyboardInterrupt):
            go(experiment, tmp_path / "parts", stop_at(step), resume=True)
    go(experiment, tmp_path / "parts", resume=True)
    assert_same_run(tmp_path / "parts", tmp_path / "whole", decoupled=False)


# The others are resumed in the default tests by `check_resuming` of the contract, and `gmd` by the tests above.
@pytest.mark.parametrize(
    "name",
    [
        "ensemble",
        *(pytest.param(name, marks=pytest.mark.slow) for name in (*ON_TASK_NETWORK, "rfnet") if name != "ensemble"),
    ],
)
def test_a_resumed_run_of_every_method_for_volumes_ends_with_the_same_bits(name, make_experiment, tmp_path):
    settings = {"method.name": name, "train.steps": 3, "train.validate_every": 3}
    experiment = make_experiment({**settings, **({"method.width": 0.25} if name == "rfnet" else {})})
    go(experiment, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        go(experiment, tmp_path / "parts", stop_at(2))
    go(experiment, tmp_path / "parts", resume=True)
    assert_same_run(tmp_path / "parts", tmp_path / "whole", decoupled=name == "gmd")


def test_volumes_of_a_size_that_the_method_cannot_take_are_refused_before_the_first_step(make_experiment, tmp_path):
    experiment = make_experiment({"method.name": "m3ae", "method.width": 0.5, "method.fill": "image"})
    with pytest.raises(InputError, match=r"A fill image of 16 x 16 voxels needs volumes of exactly this size"):
        go(experiment, tmp_path / "run")
    assert not (tmp_path / "run/metrics.jsonl").exists()


@pytest.mark.parametrize(("method", "names"), [("mmin", ("teacher", "student")), ("blend", ("sharing", "ensemble"))])
def test_a_run_stopped_in_each_stage_and_between_them_and_resumed_ends_with_the_same_bits(
    make_table_experiment, tmp_path, method: str, names: tuple[str, str]
):
    stages = {name: {"steps": 3} for name in names}
    # The best weights of a stage are not always its last ones.
    settings = {"method.name": method, "method.width": 8, "train.stages": stages, "train.validate_every": 1}
    experiment = make_table_experiment({**settings, "train.lr": 0.3})
    done = go(experiment, tmp_path / "whole")
    assert (done.step, done.stage_steps) == (6, dict.fromkeys(names, 3))
    for step in (2, 3, 5):  # In the first stage, at its end, and in the second stage.
        with pytest.raises(KeyboardInterrupt):
            go(experiment, tmp_path / "parts", stop_at(step), resume=True)
        assert tensor_file.read_facts(tmp_path / "parts/checkpoints/latest.safetensors")["step"] == step
    go(experiment, tmp_path / "parts", resume=True)
    assert_same_run(tmp_path / "parts", tmp_path / "whole", decoupled=False)
    logged = [line["stage"] for line in log_of(tmp_path / "parts") if "losses" in line]
    assert logged == [names[0]] * 3 + [names[1]] * 3


# ------------------------------------------------------------------------------------------------- steps


def test_a_step_in_bfloat16_moves_the_weights_and_keeps_them_float32(make_experiment, tmp_path):
    seen = []
    for precision in ("float32", "bfloat16"):
        experiment = make_experiment({"train.steps": 1, "train.precision": precision, "method.name": "gmd"})
        go(experiment, tmp_path / precision)
        tensors, _ = tensor_file.load(tmp_path / precision / "checkpoints/best.safetensors")
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
        assert all(tensor.isfinite().all() for tensor in tensors.values())
        seen.append((tensors, log_of(tmp_path / precision)[0]["losses"]))
    (full, losses), (half, half_losses) = seen
    # bfloat16 has 8 bits: the losses agree to about 1 in 100, and not to the bit.
    assert losses.keys() == half_losses.keys()
    assert half_losses == pytest.approx(losses, rel=0.02)
    assert half_losses != losses
    assert any(not torch.equal(full[key], half[key]) for key in full)


def test_float16_trains_weights_that_stay_float32(make_experiment, tmp_path):
    done = go(make_experiment({"train.steps": 6, "train.precision": "float16", "method.name": "gmd"}), tmp_path / "run")
    assert done.skipped < 6
    tensors, facts = tensor_file.load(tmp_path / "run/checkpoints/latest.safetensors")
    assert {value.dtype for name, value in tensors.items() if name.startswith("method.")} == {torch.float32}
    assert all(value.isfinite().all() for value in tensors.values())
    assert facts["scaler"]["scale"] > 0


@pytest.mark.parametrize("name", ["gmd", "full"])
def test_an_overflowing_gradient_skips_the_step_and_halves_the_scale(make_experiment, tmp_path, name):
    experiment = make_experiment({"method.name": name, "train.precision": "float16"})
    dataset = create_dataset(experiment.data, experiment.task)
    method, update = method_of(experiment.method, dataset.task)
    optimizer = torch.optim.Adam(method.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    batch = next(dataset.training_batches("train", 5, experiment.seed, 0, 1))
    with Run(tmp_path / "run", experiment) as run:
        run.begin(0)
        assert train_step(stage_of(method, update, dataset, run, optimizer, scaler), [batch], 1) is False
        assert scaler.get_scale() == 2.0**59
        assert all(torch.equal(before[key], value) for key, value in method.state_dict().items())
        assert not run.decoupling.entries


def test_a_resumed_run_in_float16_continues_with_its_loss_scale(make_experiment, tmp_path):
    experiment = make_experiment({"train.steps": 4, "train.precision": "float16", "method.name": "gmd"})
    go(experiment, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        go(experiment, tmp_path / "parts", stop_at(2))
    go(experiment, tmp_path / "parts", resume=True)
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


def test_logged_norms_do_not_depend_on_the_loss_scale(make_experiment, tmp_path):
    norms = {}
    for precision, scale in (("float32", None), ("float16", 2.0**10)):
        experiment = make_experiment({"method.name": "gmd", "train.precision": precision, "train.log_every": 1})
        dataset = create_dataset(experiment.data, experiment.task)
        torch.manual_seed(0)
        method, update = method_of(experiment.method, dataset.task)
        optimizer = torch.optim.Adam(method.parameters())
        scaler = UNSCALED if scale is None else torch.amp.GradScaler("cpu", init_scale=scale)
        batch = next(dataset.training_batches("train", 5, experiment.seed, 0, 1))
        with Run(tmp_path / precision, experiment) as run:
            run.begin(0)
            assert train_step(stage_of(method, update, dataset, run, optimizer, scaler), [batch], 1)
            norms[precision] = run.decoupling.arrays()["norms"]
    np.testing.assert_allclose(norms["float16"], norms["float32"], rtol=0.05)


def test_steps_without_an_eligible_sample_are_counted_and_change_nothing(make_experiment, tmp_path):
    # `full` learns from patient 002 alone, who is complete. Batches of one: of every five steps four are skipped.
    experiment = make_experiment({"method.name": "full", "train.batch": 1, "train.steps": 5, "train.validate_every": 5})
    done = go(experiment, tmp_path / "run")
    assert (done.step, done.skipped) == (5, 4)
    (taken,) = [line for line in log_of(tmp_path / "run") if "losses" in line]
    assert taken["eligible"] == {"flair+t2+t1ce+t1": 1}
    tensors, facts = tensor_file.load(tmp_path / "run/checkpoints/latest.safetensors")
    assert facts["skipped"] == 4
    # The counter of Adam has one step.
    assert tensors["optimizer.0.step"].item() == 1
    assert not (tmp_path / "run/decoupling.npz").exists()


def test_a_skipped_step_returns_false_and_leaves_weights_and_moments(make_experiment, tmp_path):
    experiment = make_experiment({"method.name": "full"})
    dataset = create_dataset(experiment.data, experiment.task)
    method, update = method_of(experiment.method, dataset.task)
    optimizer = torch.optim.Adam(method.parameters())
    before = {name: value.clone() for name, value in method.state_dict().items()}
    batches = dataset.training_batches("train", 1, experiment.seed, 0, 5)
    with Run(tmp_path / "run", experiment) as run:
        run.begin(0)
        stage = stage_of(method, update, dataset, run, optimizer)
        for step, batch in enumerate(batches, start=1):
            if batch.ids == ("phantom_002",):
                continue
            assert train_step(stage, [batch], step) is False
    assert all(torch.equal(before[name], value) for name, value in method.state_dict().items())
    assert not optimizer.state_dict()["state"]


# The others are compared in the default tests by `check_micro_batches` of the contract.
@pytest.mark.parametrize(
    "name", ["gmd", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sharing", "ensemble"))]
)
def test_micro_batches_give_the_gradient_of_the_whole_batch(name, make_experiment, tmp_path):
    # The phantoms lack modalities, so parts have unequal numbers of eligible samples. The loss is a mean over samples.
    settings = {"method.name": name, "task.pool": "sample", "train.batch": 5, "train.steps": 3}
    logs = []
    for parts in (1, 2):
        go(make_experiment({**settings, "train.micro_batches": parts}), tmp_path / str(parts))
        logs.append([line for line in log_of(tmp_path / str(parts)) if "losses" in line])
    whole, divided = logs
    assert len(whole) == 3
    for one, other in zip(divided, whole, strict=True):
        assert one["losses"] == pytest.approx(other["losses"], rel=1e-3)
        assert one["eligible"] == other["eligible"]
    assert any(count % 2 for line in whole for count in line["eligible"].values())


def test_a_batch_of_two_cannot_be_divided_into_three_micro_batches(make_experiment, tmp_path):
    with pytest.raises(InputError, match=r"A batch of 2 cannot be shared in 3 parts\."):
        go(make_experiment({"train.micro_batches": 3}), tmp_path / "run")


def test_the_decoupled_gradient_is_clipped(make_experiment, tmp_path, monkeypatch):
    norms = []
    step_of = torch.optim.Adam.step

    def watched(self, *arguments):
        norms.append(
            torch.cat([p.grad.flatten() for g in self.param_groups for p in g["params"] if p.grad is not None]).norm()
        )
        return step_of(self, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    go(make_experiment({"train.steps": 1}), tmp_path / "free")
    limit = norms[0].item() / 2
    go(make_experiment({"train.steps": 1, "train.clip": limit}), tmp_path / "clipped")
    assert norms[1].item() == pytest.approx(limit, rel=1e-4)


def test_channels_last_changes_the_layout_and_not_the_result(make_experiment, tmp_path):
    logs = []
    for last in (False, True):
        go(make_experiment({"train.steps": 2, "train.channels_last": last}), tmp_path / str(last))
        logs.append([line for line in log_of(tmp_path / str(last)) if "losses" in line])
    for one, other in zip(*logs, strict=True):
        assert one["losses"] == pytest.approx(other["losses"], rel=1e-3)
    experiment = make_experiment()
    method, _ = method_of(experiment.method, create_dataset(experiment.data, experiment.task).task)
    lay_out(method, TrainSettings(channels_last=True))
    weight = method.network.backbone.encoder[0].second.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_backbone_learns_the_same(make_experiment, tmp_path):
    logs = []
    for compiled in (False, True):
        go(make_experiment({"train.steps": 2, "train.compile": compiled}), tmp_path / str(compiled))
        logs.append([line for line in log_of(tmp_path / str(compiled)) if "losses" in line])
    assert len(logs[1]) == 2
    for one, other in zip(*logs, strict=True):
        assert one["losses"] == pytest.approx(other["losses"], rel=1e-3)


# -------------------------------------------------------------------------------------------- validation


def test_validation_selects_the_best_weights(make_experiment, tmp_path, monkeypatch):
    # Scores that rise and fall: the second of four is the best, the fourth equals it and comes too late.
    values = iter([0.2, 0.6, 0.4, 0.6])
    weights = {}

    def scores(method, dataset, split, *, thorough):
        assert (split, thorough) == ("val", False)
        value = next(values)
        weights[len(weights) + 1] = {name: tensor.clone() for name, tensor in method.state_dict().items()}
        return [Score(("t1",), "phantom_005", "dice", "WT", value), Score(("t2",), "phantom_005", "dice", "WT", 0.0)]

    monkeypatch.setattr(training, "evaluate", scores)
    experiment = make_experiment({"train.steps": 4, "train.validate_every": 1})
    lines: list[str] = []
    dataset = create_dataset(experiment.data, experiment.task)
    method, update = method_of(experiment.method, dataset.task, torch.Generator())
    with Run(tmp_path / "run", experiment) as run:
        done = train(method, update, dataset, run, torch.Generator(), report=lines.append)
    # By hand: the mean over the two scenarios is half of each score.
    assert (done.best, done.best_step) == (0.3, 2)
    assert done.validation == {"t1": {"WT": 0.6}, "t2": {"WT": 0.0}}
    assert ["(best)" in line for line in lines] == [True, True, False, False]
    assert "step 2: validation Dice 30.0, mean of 2 scenarios (best)" in lines
    tensors, facts = tensor_file.load(tmp_path / "run/checkpoints/best.safetensors")
    assert (facts["step"], facts["validation_mean"], facts["validation_samples"]) == (2, 0.3, 1)
    assert facts["validation"] == done.validation
    assert all(torch.equal(weights[2][name], tensor) for name, tensor in tensors.items())
    assert any(not torch.equal(weights[4][name], tensor) for name, tensor in tensors.items())


def test_the_last_step_is_always_validated(make_experiment, tmp_path):
    go(make_experiment({"train.steps": 3, "train.validate_every": 2}), tmp_path / "run")
    assert [line["step"] for line in log_of(tmp_path / "run") if "validation" in line] == [2, 3]


def test_the_score_of_a_checkpoint_is_the_mean_of_its_scenarios(undisturbed):
    _, folder = undisturbed
    _, facts = tensor_file.load(folder / "checkpoints/best.safetensors")
    assert len(facts["validation"]) == 15
    values = [value for regions in facts["validation"].values() for value in regions.values()]
    assert len(values) == 45
    assert math.isclose(facts["validation_mean"], sum(values) / 45)
    validated = {line["step"]: line["validation"] for line in log_of(folder) if "validation" in line}
    assert list(validated) == [3, 6, 7]
    assert facts["validation_mean"] == max(validated.values()) == validated[facts["step"]]


def test_training_goes_on_in_training_mode_after_a_validation(make_experiment, tmp_path):
    experiment = make_experiment({"train.steps": 2, "train.validate_every": 1})
    dataset = create_dataset(experiment.data, experiment.task)
    method, update = method_of(experiment.method, dataset.task, torch.Generator())
    modes = []

    def show(steps: Iterable[int], done: int, *_: object) -> Iterator[int]:
        for step in steps:
            modes.append(method.training)
            yield step

    with Run(tmp_path / "run", experiment) as run:
        train(method, update, dataset, run, torch.Generator(), show=show)
    assert modes == [True, True]


def test_the_log_of_decoupling_has_the_cases_of_each_step(undisturbed):
    _, folder = undisturbed
    logged = {line["step"]: list(line["losses"]) for line in log_of(folder) if "losses" in line}
    with np.load(folder / "decoupling.npz") as stored:
        names = stored["cases"]
        cases = {
            int(step): [str(names[index]) for index in row if index >= 0]
            for step, row in zip(stored["step"], stored["case"], strict=True)
        }
        assert cases == logged
        # A gradient has the cosine 1 with itself.
        for row, case in enumerate(stored["case"]):
            for index in range((case >= 0).sum()):
                assert stored["cosines"][row, index, index] == pytest.approx(1)
    assert len(cases) > 3


def test_logged_coefficients_follow_from_the_logged_gramian(make_experiment, tmp_path):
    # All 15 cases a step, so that nothing but the rule draws from the generator.
    experiment = make_experiment({"method.name": "gmd", "method.cases": "all"})
    go(experiment, tmp_path / "run")
    generator = torch.Generator().manual_seed(experiment.seed)
    lines = {line["step"]: line for line in log_of(tmp_path / "run") if "losses" in line}
    with np.load(tmp_path / "run" / "decoupling.npz") as stored:
        assert stored["step"].tolist() == list(lines) == [1, 2, 3, 4]
        for row, step in enumerate(stored["step"].tolist()):
            k = int((stored["case"][row] >= 0).sum())
            assert k >= 3
            products, copies = (torch.tensor(stored[name][row, :k, :k]) for name in ("gramian", "copies"))
            coefficients = sequential(products, generator)
            assert (
                stored["coefficients"][row, :k].tolist() == coefficients.tolist() == copies.numpy().sum(axis=0).tolist()
            )
            names = [str(stored["cases"][index]) for index in stored["case"][row, :k]]
            assert lines[step]["coefficients"] == dict(zip(names, coefficients.tolist(), strict=True))
            first, second = np.triu_indices(k, 1)
            assert lines[step]["conflicting"] == (products.numpy()[first, second] < 0).mean()
            lengths = products.diagonal().sqrt()
            np.testing.assert_allclose(stored["cosines"][row, :k, :k] * np.outer(lengths, lengths), products)


def test_conflicts_and_coefficients_are_curves_and_sharing_has_none(make_experiment, tmp_path):
    curves_of = {}
    for name in ("gmd", "sharing"):
        go(make_experiment({"method.name": name, "train.steps": 1, "train.validate_every": 1}), tmp_path / name)
        curves = EventAccumulator(str(tmp_path / name / "tensorboard")).Reload()
        curves_of[name] = set(curves.Tags()["scalars"])
        (line,) = [line for line in log_of(tmp_path / name) if "losses" in line]
        coefficients = {f"coefficient/{case}" for case in line["losses"]} if name == "gmd" else set()
        assert {tag for tag in curves_of[name] if tag.startswith("coefficient/")} == coefficients
    assert curves_of["gmd"] - curves_of["sharing"] == {"conflicting pairs", *coefficients_of(curves_of["gmd"])}
    assert len(coefficients_of(curves_of["gmd"])) > 1
    assert not (tmp_path / "sharing" / "decoupling.npz").exists()


def coefficients_of(tags: set[str]) -> set[str]:
    return {tag for tag in tags if tag.startswith("coefficient/")}


def test_a_step_that_is_not_logged_computes_nothing_for_the_log(make_experiment, tmp_path, monkeypatch):
    calls = []
    add, gramian = Decouplings.add, Stored.gramian
    monkeypatch.setattr(Decouplings, "add", lambda *arguments: (calls.append("log"), add(*arguments))[1])
    monkeypatch.setattr(Stored, "gramian", lambda *arguments: (calls.append("Gramian"), gramian(*arguments))[1])
    experiment = make_experiment({"method.name": "gmd", "train.steps": 5, "train.log_every": 2, "train.batch": 5})
    go(experiment, tmp_path / "run")
    # The log takes the Gramian of the step, and no other: one for each of the five.
    assert calls == ["Gramian", "Gramian", "log", "Gramian", "Gramian", "log", "Gramian"]


@pytest.mark.slow
def test_the_log_of_a_step_costs_less_than_2_percent_of_it(tmp_path):
    # The experiment of the demo, logged in every step, where one in ten is the default; about 1.1 % on two cores.
    write_phantoms(tmp_path / "patients", counts={"train": 4, "val": 1, "test": 1}, size=(48, 48, 32), seed=0)
    overrides = {"data.root": str(tmp_path / "patients"), "method.name": "gmd", "train.log_every": 1}
    experiment = read_experiment(Path(training.__file__).parents[1] / "commands/demo_segmentation.yaml", overrides)
    dataset = create_dataset(experiment.data, experiment.task)
    method, update = method_of(experiment.method, dataset.task)
    optimizer = torch.optim.Adam(method.parameters())
    whole, logging = [], []
    with Run(tmp_path / "run", experiment) as run:
        run.begin(0)
        log, add = run.log, run.decoupling.add

        def timed(function: Callable[..., None]) -> Callable[..., None]:
            def call(*arguments: object) -> None:
                start = time.perf_counter()
                function(*arguments)
                logging[-1] += time.perf_counter() - start

            return call

        run.log, run.decoupling.add = timed(log), timed(add)  # type: ignore[method-assign]
        stage = stage_of(method, update, dataset, run, optimizer)
        for step, batch in enumerate(dataset.training_batches("train", 4, 0, 0, 8), start=1):
            logging.append(0.0)
            start = time.perf_counter()
            assert train_step(stage, [batch], step)
            whole.append(time.perf_counter() - start)
    assert statistics.median(logging) < 0.02 * statistics.median(whole)


# ------------------------------------------------------------------------------------------- a budget of FLOPs


def test_a_budget_gives_the_steps_that_its_flops_allow_and_measuring_changes_no_result(make_table_experiment, tmp_path):
    settings = {"method.name": "gmd", "train.steps": 10}
    go(make_table_experiment(settings), tmp_path / "steps")
    flops = json.loads((tmp_path / "steps" / "cost.json").read_text())["stages"]["train"]["flops"]
    # A budget of ten and a half steps allows ten.
    budget = 10.5 * sum(flops) / len(flops)
    progress = go(make_table_experiment({**settings, "train.flops": budget}), tmp_path / "budget")
    assert progress.stage_steps == {"train": 10}
    first, second = (
        tensor_file.load(tmp_path / name / "checkpoints" / "latest.safetensors")[0] for name in ("steps", "budget")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_each_stage_spends_its_share_of_a_budget(make_table_experiment, tmp_path):
    budget = 2e7
    settings = {"method.name": "mmin", "method.width": 8, "train.validate_every": 100, "train.checkpoint_every": 100}
    progress = go(make_table_experiment({**settings, "train.flops": budget}), tmp_path / "run")
    assert progress.finished
    stages = json.loads((tmp_path / "run" / "cost.json").read_text())["stages"]
    assert list(stages) == ["teacher", "student"]
    # The teacher has a quarter of the budget, the student the rest; their first steps are those that were measured.
    for (name, stage), share in zip(stages.items(), (0.25, 0.75), strict=True):
        assert stage["steps"] == progress.stage_steps[name] > len(stage["flops"]) == COUNTED
        assert stage["steps"] == math.floor(budget * share / (sum(stage["flops"]) / COUNTED))
    record = read_record(tmp_path / "run")
    assert record.steps == progress.step
    assert record.flops is not None
    # What all steps cost together is the budget, but for the step of each stage that it does not pay for.
    dearest = max(stages["student"]["flops"])
    assert budget - 2 * dearest < record.flops * progress.step <= budget
    assert progress.step == sum(progress.stage_steps.values())

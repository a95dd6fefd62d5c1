"""A method with `unit = "group"` gets complete groups in order, in training, scoring and prediction."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from tests.ranks import run_ranks
from torch import Tensor, nn
from torch.testing import assert_close

import anysubset
from anysubset.batches import Batch, Inputs, Observed, as_observed, eligible, keep, renumbered, sample_count
from anysubset.datasets.table import create_dataset
from anysubset.errors import InputError
from anysubset.evaluation.every_scenario import evaluate
from anysubset.evaluation.groups import predict_group
from anysubset.experiments.data_settings import DataSettings
from anysubset.experiments.files import read_experiment
from anysubset.experiments.settings import TaskSettings
from anysubset.methods.method import Method, Objective, Step
from anysubset.methods.update import UPDATES, fill_gradients
from anysubset.scenarios import Scenario, all_scenarios, scenario_name
from anysubset.tables.dataset import TableDataset
from anysubset.tasks.task import Task, at_once

NAMES = ("text", "audio")
SIZES = (3, 1, 4, 2, 3, 2, 1, 4)  # Utterances of each video.


class Conversation(Method):
    """A method that adds to each utterance the features of the previous utterance of the same video."""

    unit = "group"

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        torch.manual_seed(0)
        self.encoders = nn.ModuleDict({modality: nn.Linear(2, 4) for modality in task.modalities})
        self.shared = nn.Linear(4, 4)
        self.head = nn.Linear(8, 1)

    def shared_parameters(self) -> list[nn.Parameter]:
        return [*self.shared.parameters(), *self.head.parameters()]

    def draw(self, generator: torch.Generator) -> tuple[Scenario, ...]:
        return tuple(all_scenarios(self.task.modalities))

    def objectives(self, step: Step) -> dict[str, Objective]:
        return {scenario_name(case): Objective(needs=case, case=True) for case in step.cases}

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        losses = {}
        for case in step.cases:
            rows = eligible(batch.inputs, case)
            if len(rows):
                outputs = self.outputs(keep(batch.inputs, case), batch.groups)[rows]
                losses[scenario_name(case)] = (outputs - batch.target[rows][:, None]).square().mean()
        return losses

    def outputs(self, inputs: Inputs, groups: Sequence[str] | None) -> Tensor:
        observed = as_observed(inputs)
        samples = sample_count(observed) if groups is None else len(groups)
        dtype = self.head.weight.dtype
        features = torch.zeros(samples, 4, dtype=dtype)
        for modality, values in observed.items():
            encoded = torch.tanh(self.shared(self.encoders[modality](values.values)))
            features = features.index_add(0, values.indices, encoded)
        previous = torch.cat([torch.zeros(1, 4, dtype=dtype), features[:-1]])
        if groups is not None:
            same = [index > 0 and groups[index] == groups[index - 1] for index in range(samples)]
            previous = previous * torch.tensor(same)[:, None]
        return self.head(torch.cat([features, previous], dim=1))

    def predict(self, inputs: Inputs) -> Tensor:
        return self.outputs(inputs, None)


def write_videos(folder: Path) -> Path:
    """A table of 8 training, 2 validation and 2 test videos; every third utterance lacks a modality.

    The utterances of the videos are shuffled in the file.
    """
    generator = np.random.default_rng(0)
    sizes = [*SIZES, 3, 2, 3, 4]
    videos = [video for video, size in enumerate(sizes) for _ in range(size)]
    order = generator.permutation(len(videos))
    group = np.array([f"v{videos[index]:02d}" for index in order])
    split = np.array(["train" if videos[index] < 8 else "val" if videos[index] < 10 else "test" for index in order])
    text = generator.normal(size=(len(order), 2)).astype(np.float32)
    audio = generator.normal(size=(len(order), 2)).astype(np.float32)
    number = np.arange(len(order))
    path = folder / "videos.npz"
    np.savez(
        path,
        y=(text[:, 0] - audio[:, 1]).astype(np.float32),
        text=text,
        text_present=number % 3 != 0,
        audio=audio,
        audio_present=number % 3 != 1,
        id=np.array([f"u{index:02d}" for index in number]),
        group=group,
        split=split,
    )
    return path


def read(path: Path) -> TableDataset:
    data = create_dataset(DataSettings("table", str(path), modalities=list(NAMES)), TaskSettings())
    assert isinstance(data, TableDataset)
    return data


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_videos(tmp_path_factory.mktemp("videos"))


# ------------------------------------------------------------------------------------------------------ scoring


class Position(Method):
    """A method that predicts the position of each sample in its group, and records its inputs."""

    unit = "group"

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.weight = nn.Parameter(torch.zeros(()))
        self.shown: list[dict[str, list[float]]] = []

    def objectives(self, step: Step) -> dict[str, Objective]:
        return {}

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        return {}

    def predict(self, inputs: Inputs) -> Tensor:
        observed = as_observed(inputs)
        self.shown.append({modality: values.values[:, 0].tolist() for modality, values in observed.items()})
        return torch.arange(float(sample_count(observed)))[:, None]


def test_a_group_shows_the_modalities_of_the_scenario_and_scores_eligible_samples(videos: Path):
    # By hand: sample 0 has text, 1 both, 2 audio, 3 neither of the scenario's but vision, 4 both.
    inputs = {
        "text": Observed(torch.tensor([[10.0], [11.0], [14.0]]), torch.tensor([0, 1, 4])),
        "audio": Observed(torch.tensor([[21.0], [22.0], [24.0]]), torch.tensor([1, 2, 4])),
        "vision": Observed(torch.tensor([[33.0]]), torch.tensor([3])),
    }
    method = Position(read(videos).task)
    outputs = dict(predict_group(method, inputs, [("text", "audio"), ("audio",)], at_once))
    assert method.shown == [{"text": [10, 11, 14], "audio": [21, 22, 24]}, {"audio": [21, 22, 24]}]
    # Without sample 3, the samples 1 and 4 are at positions 1 and 3; of audio alone, its three at 0, 1 and 2.
    assert outputs["text", "audio"].flatten().tolist() == [1, 3]
    assert outputs["audio",].flatten().tolist() == [0, 1, 2]


def test_scores_of_groups_equal_those_of_single_videos(videos: Path):
    dataset = read(videos)
    method = Conversation(dataset.task)
    scores = evaluate(method, dataset, "train")
    predicted = {(score.scenario, score.sample): score.value for score in scores if score.metric == "prediction"}
    table = dataset.table.select([sample for sample in dataset.ids("all") if sample in dataset.ids("train")])
    dataset.prepare("train")
    standardised = dataset.ready["train"]
    group_of = dict(zip(table.ids, table.groups or (), strict=True))
    compared = 0
    for video in sorted(set(group_of.values())):
        members = standardised.select([sample for sample in table.ids if group_of[sample] == video])
        for scenario in all_scenarios(NAMES):
            if not set(scenario) <= set(members.inputs):
                continue
            rows = eligible(members.inputs, scenario).tolist()
            shown = renumbered(keep(members.inputs, scenario))
            outputs = method.predict(shown)[eligible(shown, scenario)].flatten().tolist()
            for row, output in zip(rows, outputs, strict=True):
                assert predicted[scenario, members.ids[row]] == pytest.approx(output, abs=1e-6)
                compared += 1
    assert compared == len(predicted) > 30


def test_predictions_for_a_file_are_made_from_complete_groups_in_order(videos: Path, tmp_path: Path):
    experiment = read_experiment(
        None,
        {
            "data.name": "table",
            "data.root": str(videos),
            "data.modalities": list(NAMES),
            "train.steps": 4,
            "train.batch": 6,
            "train.validate_every": 2,
            "train.device": "cpu",
        },
    )
    run = tmp_path / "run"
    lines: list[str] = []
    anysubset.fit(experiment, run=run, method=Conversation, report=lines.append)
    assert "8 training groups of 1 to 4 samples; a batch holds whole groups" in lines
    evaluation = anysubset.evaluate(run, method=Conversation, device="cpu")
    assert {score.scenario for score in evaluation.scores} == set(all_scenarios(NAMES))
    (path,) = anysubset.predict(run, videos, method=Conversation, device="cpu")
    with path.open(newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    method = anysubset.load(run, method=Conversation, device="cpu")
    dataset = read(videos)
    dataset.prepare("all")
    table = dataset.ready["all"]
    group_of = dict(zip(table.ids, table.groups or (), strict=True))
    members = table.select([sample for sample in table.ids if group_of[sample] == group_of["u05"]])
    outputs = method.predict(members.inputs).flatten().tolist()
    for sample, output in zip(members.ids, outputs, strict=True):
        assert float(rows[sample]["prediction"]) == pytest.approx(output, abs=1e-5)
    # By hand: of three utterances in a row, one lacks text, one lacks audio, and one has both.
    assert [rows[f"u0{number}"]["used"] for number in range(3)] == ["audio", "text", "text+audio"]
    with pytest.raises(InputError, match="predicts whole groups: leave out --rate"):
        anysubset.evaluate(run, method=Conversation, rates=[0.3], device="cpu")


def gcnet_settings(root: Path, **own: object) -> dict[str, Any]:
    settings = {"data.name": "table", "data.root": str(root), "method.name": "gcnet", "method.width": 2}
    return {**settings, "train.steps": 1, "train.batch": 8, "train.device": "cpu", **own}


def without_groups(videos: Path, folder: Path) -> Path:
    with np.load(videos) as stored:
        np.savez(folder / "single.npz", **{name: array for name, array in stored.items() if name != "group"})
    return folder / "single.npz"


@pytest.mark.parametrize(
    ("method", "remedy"),
    [
        ({}, "set method.conversation to false"),
        ({"method.name": "sharing", "method.context": "conversation", "method.width": 8}, "leave out method.context"),
    ],
)
def test_a_method_of_groups_on_data_without_them_is_refused_before_a_run_folder_is_made(
    videos: Path, tmp_path: Path, fault: Callable[..., str], method: dict[str, Any], remedy: str
):
    settings = gcnet_settings(without_groups(videos, tmp_path), **method)
    message = fault(lambda: anysubset.fit(run=tmp_path / "run", **settings))
    assert message.endswith(
        "has none: add a column or array 'group', or set data.group to the name of another one, to a pattern of ids, "
        "or to a file of groups by id. "
        f"Or {remedy}."
    )
    assert not (tmp_path / "run").exists()


def test_an_option_makes_a_method_of_groups_predict_samples_which_is_noted(videos: Path, tmp_path: Path):
    settings = gcnet_settings(without_groups(videos, tmp_path), **{"method.conversation": False})
    lines: list[str] = []
    anysubset.fit(run=tmp_path / "run", report=lines.append, **settings)
    assert "note: every sample is predicted by itself, not from its group" in lines
    scores = anysubset.evaluate(tmp_path / "run", rates=[0.3], device="cpu").scores
    assert {score.scenario for score in scores} == set(all_scenarios(NAMES))


def test_utterances_out_of_order_are_noted_where_order_matters(videos: Path, tmp_path: Path):
    with np.load(videos) as stored:
        backwards = {name: array[::-1] for name, array in stored.items()}
    np.savez(tmp_path / "backwards.npz", **backwards)
    anysubset.fit(run=tmp_path / "run", **gcnet_settings(videos))
    for name, noted in (("backwards", True), ("videos", False)):
        lines: list[str] = []
        path = tmp_path / f"{name}.npz" if noted else videos
        anysubset.predict(tmp_path / "run", path, device="cpu", report=lines.append, overwrite=True)
        assert any("not sorted by the numbers in their ids" in line for line in lines) == noted


def test_speakers_reach_the_method_in_training_scoring_and_prediction(
    videos: Path, tmp_path: Path, fault: Callable[..., str]
):
    with np.load(videos) as stored:
        arrays = dict(stored)
    speaker = np.array(["M", "F"] * len(arrays["id"]))[: len(arrays["id"])]
    np.savez(tmp_path / "spoken.npz", **arrays, speaker=speaker)
    settings = {**gcnet_settings(tmp_path / "spoken.npz"), "method.speakers": 2}
    anysubset.fit(run=tmp_path / "run", **settings)
    assert anysubset.evaluate(tmp_path / "run", device="cpu").scores
    predictions = []
    for name, names in (("same", speaker), ("alone", np.array(["M"] * len(speaker)))):
        np.savez(tmp_path / f"{name}.npz", **arrays, speaker=names)
        (path,) = anysubset.predict(tmp_path / "run", tmp_path / f"{name}.npz", output=tmp_path / name, device="cpu")
        predictions.append(path.read_text())
    assert predictions[0] != predictions[1]
    assert fault(anysubset.predict, tmp_path / "run", videos, device="cpu").endswith(
        "does not say who speaks: give an .npz file with an array 'speaker', or a run with method.speakers 1."
    )
    np.savez(tmp_path / "many.npz", **arrays, speaker=arrays["id"])
    message = fault(anysubset.fit, run=tmp_path / "other", **{**settings, "data.root": str(tmp_path / "many.npz")})
    assert message.endswith("has 4 speakers, more than method.speakers, which is 2: raise it, or leave the group out.")
    assert not (tmp_path / "other").exists()


def test_a_method_that_returns_fewer_outputs_than_samples_is_refused(videos: Path, monkeypatch: pytest.MonkeyPatch):
    dataset = read(videos)
    method = Conversation(dataset.task)
    monkeypatch.setattr(Conversation, "predict", lambda self, inputs: self.outputs(inputs, None)[:0])
    with pytest.raises(InputError, match=r"returned 0 outputs for \d+ samples; it must return one each"):
        evaluate(method, dataset, "train")


# ----------------------------------------------------------------------------------------------- real processes


def gradients_and_scores(path: Path) -> dict[str, Any]:
    """Gradients of four steps by update and number of micro-batches, in float64, and the scores on `train`."""
    dataset = read(path)
    results: dict[str, Any] = {"shares": []}
    for update_name in ("mean", "gmd"):
        for parts in (1, 2):
            method = Conversation(dataset.task).double()
            update = UPDATES[update_name](method)
            batches = dataset.training_batches("train", 7, 0, 0, 4, parts, "group")
            for number in range(4):
                micro_batches = [in_float64(next(batches)) for _ in range(parts)]
                results["shares"] += [len(batch.ids) for batch in micro_batches]
                step = Step(number, cases=method.draw(torch.Generator()))
                method.zero_grad(set_to_none=True)
                assert fill_gradients(method, update, micro_batches, step) is not None
                gradients = {name: parameter.grad.clone() for name, parameter in method.named_parameters()}
                results[f"{update_name}/{parts}/{number}"] = gradients
    scores = evaluate(Conversation(dataset.task), dataset, "train")
    results["scores"] = [(score.scenario, score.sample, score.metric, score.value) for score in scores]
    return results


def in_float64(batch: Batch) -> Batch:
    inputs = {
        modality: Observed(values.values.double(), values.indices, values.valid)
        for modality, values in batch.inputs.items()
    }
    return Batch(inputs, batch.target.double(), batch.ids, batch.groups)


def process(rank: int, world: int, folder: str, path: str) -> None:
    """Join a process group over files, and save the results of this rank."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    try:
        torch.save(gradients_and_scores(Path(path)), f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.mark.timeout(3000)
def test_whole_groups_of_incomplete_samples_give_the_same_gradients_and_scores_on_two_processes(
    videos: Path, tmp_path: Path
):
    assert run_ranks(process, 2, str(tmp_path), str(videos)) == [0, 0]
    alone = gradients_and_scores(videos)
    by_rank = [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2)]
    # Both ranks had samples, and at some step unequally many.
    assert all(sum(results["shares"]) > 0 for results in by_rank)
    assert by_rank[0]["shares"] != by_rank[1]["shares"]
    steps = [name for name in alone if name not in ("shares", "scores")]
    assert len(steps) == 16
    for results in by_rank:
        for name in steps:
            assert_close(results[name], alone[name], rtol=1e-10, atol=1e-12)
        assert [score[:3] for score in results["scores"]] == [score[:3] for score in alone["scores"]]
        values = [score[3] for score in results["scores"]]
        assert values == pytest.approx([score[3] for score in alone["scores"]], rel=1e-5, abs=1e-6)

"""Common fixtures: small phantoms and tables, some samples of which lack modalities, and tiny experiments on them."""

import gc
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest
import torch

from anysubset import cli
from anysubset.batches import Batch
from anysubset.commands import terminal
from anysubset.errors import InputError
from anysubset.experiments.files import read_experiment, write_experiment
from anysubset.experiments.settings import Experiment
from anysubset.methods.creation import method_options
from anysubset.scenarios import Scenario
from anysubset.scoring.scores import ALL, Score, write_scores
from anysubset.system import tensor_file
from anysubset.tables.formats import read_table
from anysubset.training import loop as training
from anysubset.training.step import StageTraining
from anysubset.volumes.phantom import write_phantoms

# Tables have the width of a log file, independent of the terminal in which the tests run.
terminal.console.width = 100

# Toy tensors gain nothing from threads, and where other processes keep the cores busy they lose a hundredfold.
torch.set_num_threads(1)

# By default Python looks for unreachable cycles as soon as there are 700 new objects, which takes up to a twelfth of
# the time of the tests.
gc.set_threshold(50_000)

TINY = {
    "data.name": "phantom",
    "task.patch": [16, 16],
    "method.width": 0.25,
    "train.steps": 4,
    "train.batch": 2,
    "train.validate_every": 2,
    "train.checkpoint_every": 1,
    "train.log_every": 1,
    "train.device": "cpu",
}

MakeExperiment = Callable[..., Experiment]


def tiny_experiment(settings: Mapping[str, Any], overrides: Mapping[str, Any]) -> Experiment:
    """An experiment with overrides; options that the method does not have are left out of the settings."""
    options = method_options(overrides.get("method.name", "gmd"))
    own = {
        name: value
        for name, value in settings.items()
        if not name.startswith("method.") or name.removeprefix("method.") in options
    }
    return read_experiment(None, {**own, **overrides})


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5 patients for training, 4 of them incomplete, 1 for validation and 2 for the test. Read-only.

    000: t2. 001: t2 t1. 002: all. 003: flair t2. 004: t2 t1. 005 (val), 006 and 007 (test): all.
    """
    root = tmp_path_factory.mktemp("phantoms") / "patients"
    write_phantoms(root, counts={"train": 5, "val": 1, "test": 2}, size=(16, 16, 16), seed=0, missing_rate=0.4)
    return root


@pytest.fixture(scope="session")
def make_experiment(phantoms: Path) -> MakeExperiment:
    """A tiny experiment on the phantoms, with overrides under dotted names."""

    def make(overrides: Mapping[str, Any] | None = None) -> Experiment:
        return tiny_experiment({**TINY, "data.root": str(phantoms)}, overrides or {})

    return make


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, make_experiment: MakeExperiment) -> Path:
    """Run folder of four steps of GMD, with `tiny.yaml` beside it. Read-only."""
    from anysubset.cli import main

    folder = tmp_path_factory.mktemp("trained")
    write_experiment(make_experiment(), folder / "tiny.yaml")
    assert main(["fit", str(folder / "tiny.yaml"), "--run", str(folder / "tiny")]) == 0
    return folder / "tiny"


# One layer of width 16.
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def saved_model(folder: Path, seed: int, create: Callable[[Any], Any]) -> Path:
    """The folder, with a model of `transformers` with random weights. create: from the package to the model."""
    transformers = pytest.importorskip("transformers", reason="the extra `transformers` is not installed")
    from anysubset.models.pretrained_folder import quiet

    with torch.random.fork_rng([]), quiet():
        torch.manual_seed(seed)
        create(transformers).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of one layer and width 16, with 50 token ids and a maximum length of 12. Read-only."""
    # As it is published: with a layer on top that this project does not use.
    return saved_model(
        tmp_path_factory.mktemp("bert"),
        11,
        lambda models: models.BertModel(models.BertConfig(**SIZES, vocab_size=50, max_position_embeddings=12)),
    )


@pytest.fixture(scope="session")
def speech_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wav2vec 2.0 of one layer and width 16, with a frame for every 8 values; it needs 16 values. Read-only."""
    layers = {"conv_dim": (8, 8), "conv_kernel": (8, 3), "conv_stride": (4, 2), "num_feat_extract_layers": 2}
    positions = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    return saved_model(
        tmp_path_factory.mktemp("speech"),
        12,
        lambda models: models.Wav2Vec2Model(models.Wav2Vec2Config(**SIZES, **layers, **positions, vocab_size=4)),
    )


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT of one layer and width 16 for images of 3 channels and 8 x 8 pixels, in four patches. Read-only."""
    return saved_model(
        tmp_path_factory.mktemp("image"),
        13,
        lambda models: models.ViTModel(models.ViTConfig(**SIZES, image_size=8, patch_size=4)),
    )


# ----------------------------------------------------------------------------------------------------- tables

TINY_FEATURES = {
    "data.name": "mosi",
    "method.width": 8,
    "method.layers": 1,
    "train.steps": 4,
    "train.batch": 4,
    "train.lr": 1e-3,
    "train.validate_every": 2,
    "train.checkpoint_every": 1,
    "train.log_every": 1,
    "train.device": "cpu",
}


def make_arrays(filler: float = 0.0) -> dict[str, np.ndarray]:
    """14 utterances, 8 to train on, 3 for validation and 3 for the test; `filler` is the value of missing modalities.

    text: not of 1 and 2, 1 to 4 steps. audio: not of 0 and 2, gaps between steps. vision: not of 0, 1, 3 and 13.
    """
    generator = np.random.default_rng(7)
    y = np.array([-2.0, 0.5, 3.0, -0.4, 1.0, -1.5, 0.0, 2.5, -3.0, 0.0, 1.5, 1.0, -1.0, 2.0], np.float32)
    arrays: dict[str, np.ndarray] = {"y": y, "id": np.array([f"v{number // 2}/{number % 2}" for number in range(14)])}
    arrays["group"] = np.array([f"v{number // 2}" for number in range(14)])
    arrays["split"] = np.array(["train"] * 8 + ["val"] * 3 + ["test"] * 3)
    lacking = {"text": [1, 2], "audio": [0, 2], "vision": [0, 1, 3, 13]}
    for name, (time, size) in {"text": (4, 3), "audio": (5, 2), "vision": (3, 2)}.items():
        values = generator.normal(size=(14, time, size)).astype(np.float32) + y[:, None, None]
        present = np.ones(14, bool)
        present[lacking[name]] = False
        valid = np.arange(time) < generator.integers(1, time + 1, 14)[:, None]
        if name == "audio":
            valid = generator.random((14, time)) < 0.6
            valid[:, 1] = True
        values[~valid | ~present[:, None]] = filler
        arrays |= {name: values, f"{name}_present": present}
        arrays |= {f"{name}_valid": valid} if name == "audio" else {f"{name}_lengths": valid.sum(axis=1)}
    return arrays


@pytest.fixture(scope="session")
def table_arrays() -> Callable[..., dict[str, np.ndarray]]:
    """`table_arrays(filler)` returns the arrays of a tiny file of utterances."""
    return make_arrays


@pytest.fixture
def rewritten(tmp_path: Path) -> Callable[..., Path]:
    """`rewritten(text=..)` writes the utterances to a new file with other arrays; None leaves an array out."""

    def write(**changes: np.ndarray | None) -> Path:
        path = tmp_path / "rewritten.npz"
        np.savez(path, **{name: array for name, array in {**make_arrays(), **changes}.items() if array is not None})
        return path

    return write


@pytest.fixture(scope="session")
def utterances(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """File of `make_arrays`. Read-only."""
    path = tmp_path_factory.mktemp("table") / "utterances.npz"
    np.savez(path, **make_arrays())
    return path


@pytest.fixture(scope="session")
def make_table_experiment(utterances: Path) -> MakeExperiment:
    """A tiny experiment on these utterances, with overrides under dotted names."""

    def make(overrides: Mapping[str, Any] | None = None) -> Experiment:
        return tiny_experiment({**TINY_FEATURES, "data.root": str(utterances)}, overrides or {})

    return make


@pytest.fixture(scope="session")
def trained_table(tmp_path_factory: pytest.TempPathFactory, make_table_experiment: MakeExperiment) -> Path:
    """Run folder of four steps of GMD on the utterances, with `tiny.yaml` beside it. Read-only."""
    from anysubset.cli import main

    folder = tmp_path_factory.mktemp("trained_table")
    write_experiment(make_table_experiment(), folder / "tiny.yaml")
    assert main(["fit", str(folder / "tiny.yaml"), "--run", str(folder / "tiny")]) == 0
    return folder / "tiny"


# ------------------------------------------------------------------------------------------------ commands


@pytest.fixture
def output_of(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that succeeds; returns its output."""

    def command(*arguments: object) -> str:
        capsys.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert (code, err) == (0, "")
        return out

    return command


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that is refused; returns its line."""

    def command(*arguments: object) -> str:
        capsys.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        line = capsys.readouterr().err
        assert code == 2
        assert line.startswith("anysubset: ")
        assert line.count("\n") == 1
        return line

    return command


@pytest.fixture
def stopped_before(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], AbstractContextManager[None]]:
    """`with stopped_before(3): ...`: training is interrupted before that step."""

    @contextmanager
    def until(last: int) -> Iterator[None]:
        step_of = training.train_step

        def step_or_stop(stage: StageTraining, micro_batches: Sequence[Batch], number: int) -> bool:
            if number == last:
                raise KeyboardInterrupt
            return step_of(stage, micro_batches, number)

        with monkeypatch.context() as patch:
            patch.setattr(training, "train_step", step_or_stop)
            yield

    return until


# ------------------------------------------------------------------------------------------------ wrong input

Fault = Callable[..., str]


@pytest.fixture(scope="session")
def fault() -> Fault:
    """`fault(action, ...)` returns the line of the InputError that the action raises."""

    def line_of(action: Callable[..., object], *arguments: object, **named: object) -> str:
        with pytest.raises(InputError) as caught:
            action(*arguments, **named)
        line = str(caught.value)
        assert "\n" not in line
        return line

    return line_of


@pytest.fixture(scope="session")
def cheap_fault(fault: Fault) -> Fault:
    """As `fault`; the refusal also takes less than 10 seconds, and Python and numpy allocate less than 200 MB for it.

    The time is generous: tracing memory makes Python several times slower.
    """

    def line_of(action: Callable[..., object], *arguments: object, **named: object) -> str:
        tracemalloc.start()
        start = monotonic()
        try:
            line = fault(action, *arguments, **named)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert monotonic() - start < 10
        assert peak < 2e8
        assert len(line) < 1000
        return line

    return line_of


@pytest.fixture(scope="session")
def table_fault(fault: Fault) -> Fault:
    """`table_fault(path, **options)` returns the line of the InputError for a table; it starts with the path."""

    def line_of(path: Path, **options: object) -> str:
        line = fault(read_table, path, **options)
        assert line.startswith(str(path))
        return line

    return line_of


# ------------------------------------------------------------------------------------------- run folders with scores

Dice = Mapping[Scenario, Mapping[str, list[float]]]


@pytest.fixture
def volumes_run(tmp_path: Path) -> Callable[..., Path]:
    """`write(name, dice)` writes a run folder with the Dice of patients p0, p1, .. by scenario and region."""

    def write(name: str, dice: Dice, method: str = "gmd", seed: int = 0, **settings: Any) -> Path:
        modalities = tuple(dict.fromkeys(name for scenario in dice for name in scenario))
        scores = [
            Score(scenario, f"p{index}", "dice", region, value)
            for scenario, regions in dice.items()
            for region, values in regions.items()
            for index, value in enumerate(values)
        ]
        return write_run(tmp_path / name, scores, modalities, "brats", method, seed, settings)

    return write


@pytest.fixture
def table_run(tmp_path: Path) -> Callable[..., Path]:
    """`write(name, predictions, targets)` writes a run folder with predictions of samples s0, s1, .. by scenario."""

    def write(
        name: str,
        predictions: Mapping[Scenario, list[float]],
        target: list[float],
        method: str = "gmd",
        seed: int = 0,
        over_set: Mapping[Scenario, Mapping[str, float]] | None = None,
        facts: Mapping[str, Any] | None = None,
        dataset: str = "mosi",
        **settings: Any,
    ) -> Path:
        modalities = tuple(dict.fromkeys(name for scenario in predictions for name in scenario))
        classes = bool((facts or {}).get("classes"))
        scores = []
        for scenario, values in predictions.items():
            for index, (prediction, truth) in enumerate(zip(values, target, strict=True)):
                mark = Score(scenario, f"s{index}", "error", ALL, abs(prediction - truth))
                if classes:
                    mark = Score(scenario, f"s{index}", "correct", ALL, float(prediction == truth))
                scores += [
                    Score(scenario, f"s{index}", "prediction", ALL, prediction),
                    Score(scenario, f"s{index}", "target", ALL, truth),
                    mark,
                ]
            scores += [
                Score(scenario, ALL, metric, ALL, value) for metric, value in (over_set or {}).get(scenario, {}).items()
            ]
        folder = write_run(tmp_path / name, scores, modalities, dataset, method, seed, settings)
        if facts is not None:
            tensor_file.save(folder / "signature.safetensors", {"x": torch.zeros(1)}, facts)
        return folder

    return write


def write_run(
    folder: Path,
    scores: list[Score],
    modalities: Scenario,
    dataset: str,
    method: str,
    seed: int,
    settings: Mapping[str, Any],
) -> Path:
    """Write scores, experiment and a checkpoint; return the folder."""
    (folder / "checkpoints").mkdir(parents=True)
    facts = {"run": folder.name, "method": method, "seed": seed, "dataset": dataset, "split": "test"}
    write_scores(folder / "scores.csv", scores, modalities, facts)
    named = {"data.name": dataset, "method.name": method, "seed": seed}
    write_experiment(read_experiment(None, {**named, **settings}), folder / "experiment.yaml")
    tensor_file.save(folder / "checkpoints" / "best.safetensors", {"x": torch.zeros(1)}, {"metric": "dice"})
    return folder

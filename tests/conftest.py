"""What several files share: a tiny set of phantoms with real holes, and experiments on it that take a second."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from anysubset.data.phantom import write_phantoms
from anysubset.experiment import Experiment, read_experiment, write_experiment

# Toy tensors gain nothing from threads, and where other processes keep the cores busy they lose a hundredfold.
torch.set_num_threads(1)

TINY = {
    "data.name": "phantom",
    "model.patch": [16, 16],
    "model.width": 0.25,
    "train.steps": 4,
    "train.batch": 2,
    "train.validate_every": 2,
    "train.checkpoint_every": 1,
    "train.log_every": 1,
    "train.device": "cpu",
}

MakeExperiment = Callable[..., Experiment]


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5 training patients, 4 of them incomplete, 1 for validation and 2 for the test. Not to be written to.

    000: t2. 001: t2 t1. 002: all. 003: flair t2. 004: t2 t1. 005 (val), 006 and 007 (test): all.
    """
    root = tmp_path_factory.mktemp("phantoms") / "patients"
    write_phantoms(root, counts={"train": 5, "val": 1, "test": 2}, size=(16, 16, 16), seed=0, missing_rate=0.4)
    return root


@pytest.fixture(scope="session")
def make_experiment(phantoms: Path) -> MakeExperiment:
    """A tiny experiment on the phantoms, but for dotted overrides."""

    def make(overrides: Mapping[str, Any] | None = None) -> Experiment:
        return read_experiment(None, {**TINY, "data.root": str(phantoms), **(overrides or {})})

    return make


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, make_experiment: MakeExperiment) -> Path:
    """The run folder of four steps of GMD; `tiny.yaml` lies beside it. Not to be written to."""
    from anysubset.cli import main

    place = tmp_path_factory.mktemp("trained")
    write_experiment(make_experiment(), place / "tiny.yaml")
    assert main(["fit", str(place / "tiny.yaml"), "--run", str(place / "tiny")]) == 0
    return place / "tiny"

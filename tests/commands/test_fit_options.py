"""Options of the method on the command line of `fit`, with the method of the files and with others."""

from pathlib import Path

import pytest

from anysubset import api, cli
from anysubset.experiments.settings import Experiment
from anysubset.methods.creation import method_options
from anysubset.methods.table import METHODS

# Methods for volumes that train on cases: those that have the option.
WITH_CASES = [name for name in METHODS if "cases" in method_options(name) and METHODS[name].tasks != "tables"]


@pytest.fixture
def experiment_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`experiment_of(*options)`: the experiment that `fit` would train, of a file without settings of the method."""
    (tmp_path / "file.yaml").write_text("data: {name: phantom}\ntask: {patch: [64, 64]}\n")
    experiments: list[Experiment] = []
    monkeypatch.setattr(api, "fit", lambda experiment, **rest: experiments.append(experiment))

    def parse(*options: str) -> Experiment:
        assert cli.main(["fit", str(tmp_path / "file.yaml"), *options]) == 0
        return experiments.pop()

    return parse


@pytest.mark.parametrize("spelling", [("--method.cases", "random=3"), ("--method.cases=random=3",)])
def test_cases_alone_are_of_the_default_method(experiment_of, spelling):
    assert experiment_of(*spelling).method == {"name": "gmd", "cases": "random=3"}


@pytest.mark.parametrize("name", WITH_CASES)
def test_cases_are_an_option_of_every_method_that_trains_on_cases(experiment_of, name):
    assert {"gmd", "sharing", "nnunet", "rfnet"} <= set(WITH_CASES)
    experiment = experiment_of("--method.cases", "random=3", "--method.name", name)
    assert experiment.method == {"name": name, "cases": "random=3"}

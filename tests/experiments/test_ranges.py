"""Numbers that no float, seed, count or network can hold are refused as settings; other settings train or diverge."""

import csv
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import anysubset
from anysubset import cli
from anysubset.errors import InputError
from anysubset.experiments.files import read_experiment
from anysubset.scenarios import all_scenarios, scenario_name, scored_scenarios
from anysubset.system.numbers import memory_errors


def write_table(path: Path, modalities: int, samples: int = 24) -> Path:
    """Half of the samples for training, a quarter each for validation and test; two values per modality."""
    generator = np.random.default_rng(0)
    y = generator.normal(size=samples).astype(np.float32)
    values = {f"m{index:02d}": generator.normal(size=(samples, 2)).astype(np.float32) for index in range(modalities)}
    split = np.array((["train", "train", "val", "test"] * samples)[:samples])
    np.savez(path, y=y, id=np.array([f"s{index}" for index in range(samples)]), split=split, **values)
    return path


def tiny(root: Path, **changes: Any) -> dict[str, Any]:
    settings = {"data.name": "table", "data.root": str(root), "method.width": 8, "method.layers": 1, "train.steps": 2}
    settings |= {"train.batch": 4, "train.device": "cpu", "train.log_every": 1, "train.checkpoint_every": 1}
    return {**settings, **{name.replace("__", "."): value for name, value in changes.items()}}


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("seed", -1, r"seed must be 0 or more and below 2\^63, not -1"),
        ("seed", 2**64, r"seed must be 0 or more and below 2\^63"),
        ("train.lr", "1e400", "train.lr must be positive, not inf, and at most 3.4e38"),
        ("train.lr", 1e39, "not 1e.39, and at most 3.4e38"),
        ("train.lr", float("nan"), "not nan"),
        ("train.rates", {"*": 1e300}, "learning rate of '\\*' must be positive and at most"),
        ("train.weight_decay", -1.0, "must be 0 or more"),
        ("train.weight_decay", 1e39, "at most 3.4e38"),
        ("train.clip", float("nan"), "train.clip is a norm"),
        ("train.batch", 10**12, "train.batch must be at most 1,000,000, not 1000000000000"),
        ("train.micro_batches", 10**9, "train.micro_batches must be at most 1,000,000"),
        ("train.steps", 10**30, "train.steps must be at most 1,000,000,000,000"),
        ("train.warmup", 10**30, "train.warmup must be at most"),
        ("train.checkpoint_every", 10**30, "train.checkpoint_every must be at most"),
        ("data.workers", 10**9, "data.workers must be at most 1,024"),
        ("data.modalities", ["m00", "m00"], "data.modalities names a modality twice: m00, m00"),
        ("task.cross_entropy", float("nan"), "task.cross_entropy must be a finite number"),
        ("task.cross_entropy", float("inf"), "task.cross_entropy must be a finite number"),
        ("task.patch", [10**6, 10**6, 10**6], "more than 2.31 voxels"),
        ("method.width", 10**9, "method.width must be at most 16,384"),
        ("method.layers", 10**9, "method.layers must be at most 1,000"),
        ("method.dropout", float("nan"), "method.dropout must be a finite number"),
        ("method.anything", 10**30, "method.anything is beyond the whole numbers of 64 bits"),
    ],
)
def test_a_number_out_of_range_is_refused_as_a_setting(setting: str, value: Any, message: str):
    with pytest.raises(InputError, match=message) as caught:
        read_experiment(None, {setting: value})
    assert "\n" not in str(caught.value)


def test_the_largest_seed_trains(tmp_path: Path):
    root = write_table(tmp_path / "table.npz", 2)
    fitted = anysubset.fit(tiny(root, seed=2**63 - 1), run=tmp_path / "run")
    assert fitted.steps == 2


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("Storage size calculation overflowed with sizes=[1, 2]"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
    ],
)
def test_a_lack_of_memory_is_one_line_that_says_what_to_lower(error: Exception):
    refused = pytest.raises(InputError, match=r"^There is not enough memory: lower train\.batch")
    with refused as caught, memory_errors("lower train.batch"):
        raise error
    assert "\n" not in str(caught.value)


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    with pytest.raises(RuntimeError, match="shapes"), memory_errors("lower train.batch"):
        raise RuntimeError("shapes differ")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_a_lack_of_memory_in_any_command_is_one_line(error: Exception, monkeypatch, capsys):
    def fail(_: object) -> None:
        """Fail as a command whose memory does not suffice."""
        raise error

    monkeypatch.setitem(cli.COMMANDS, "methods", (cli.COMMANDS["methods"][0], fail))
    assert cli.main(["methods"]) == 2
    assert capsys.readouterr().err == f"anysubset: {cli.NO_MEMORY}\n"


# ------------------------------------------------------------------------------------------ values of a wrong type


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("train.lr", "nan", "train.lr must be a finite number, not nan."),
        ("train.steps", "1.5", "train.steps must be a whole number, not 1.5."),
        ("train.compile", "maybe", "train.compile must be true or false, not maybe."),
        ("task.patch", "16", "task.patch must be a list, such as [1, 2], not 16."),
        ("data.clip", "[nan,1]", "data.clip must be a finite number, not nan."),
        ("data.regions", "3", "data.regions must be names with values, such as {a: 1}, not 3."),
    ],
)
def test_a_value_of_a_wrong_type_is_refused_in_plain_words(setting: str, value: str, message: str, capsys):
    assert cli.main(["fit", "tiny.yaml", f"--{setting}={value}"]) == 2
    assert capsys.readouterr().err == f"anysubset: {message} (see `anysubset fit --help`)\n"
    with pytest.raises(InputError) as caught:
        read_experiment(None, {setting: yaml.safe_load(value)})
    assert str(caught.value) == f"A setting cannot be read: {message}"


# ------------------------------------------------------------------------------------------ seventeen modalities


def test_up_to_16_modalities_have_all_scenarios_and_17_have_100():
    names = [f"m{index:02d}" for index in range(17)]
    assert scored_scenarios(names[:5]) == all_scenarios(names[:5])
    chosen = scored_scenarios(names)
    assert len(set(chosen)) == len(chosen) == 100
    assert chosen[:17] == [(name,) for name in names]
    assert chosen[-1] == tuple(names)
    assert scored_scenarios(names) == chosen  # The same in every run.


def test_17_modalities_are_validated_scored_and_predicted(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = write_table(tmp_path / "table.npz", 17)
    lines: list[str] = []
    fitted = anysubset.fit(tiny(root, method__cases="random=5"), run=tmp_path / "run", report=lines.append)
    assert len(fitted.validation) == 100
    assert any("17 modalities have 131,071 scenarios; 100 are scored" in line for line in lines)
    assert cli.main(["evaluate", str(tmp_path / "run"), "--split", "test", "--rate", "0.5"]) == 2
    assert "and of 17 modalities only some scenarios are scored: leave out --rate." in capsys.readouterr().err
    assert cli.main(["evaluate", str(tmp_path / "run"), "--split", "test"]) == 0
    assert "100 are scored" in " ".join(capsys.readouterr().out.split())
    with (tmp_path / "run" / "scores.csv").open(newline="") as file:
        scenarios = {row["scenario"] for row in csv.DictReader(file)}
    names = [f"m{index:02d}" for index in range(17)]
    assert scenarios == {scenario_name(scenario) for scenario in scored_scenarios(names)}
    assert cli.main(["predict", str(tmp_path / "run"), str(root), "--output", str(tmp_path / "out")]) == 0


def test_all_cases_of_17_modalities_are_refused_before_training(tmp_path: Path):
    root = write_table(tmp_path / "table.npz", 17)
    with pytest.raises(InputError, match=r"17 modalities have too many scenarios to list; .*random=5"):
        anysubset.fit(tiny(root, method__cases="all"), run=tmp_path / "run")
    assert not (tmp_path / "run" / "experiment.yaml").exists()


# ----------------------------------------------------------------------------------------------- random settings


NUMBERS = [-(10**30), -1, 0, 1, 2, 3, 7, 10**9, 10**30, 2**63, 2**64]
REALS = [-1.0, 0.0, 1e-300, 1e-8, 1e-3, 0.5, 0.999, 1.0, 5.0, 1e5, 1e20, 1e30, 1e38, 1e39, float("inf"), float("nan")]
CHOICES: Mapping[str, list[Any]] = {
    "seed": [0, *NUMBERS],
    "train.steps": [1, 2, 5, -1, 0, 10**30],
    "train.batch": [1, 3, 24, -1, 0, 10**9],
    "train.micro_batches": [1, 2, -1, 0, 10**9],
    "train.clip": REALS,
    "train.optimizer": ["adam", "adamw", "sgd", "lion"],
    "train.momentum": REALS,
    "train.betas": [[0.9, 0.999], [0.0, 0.0], [1.0, 1.0], [0.9999999999999999, 0.9999999999999999], [0.5]],
    "train.lr": REALS,
    "train.weight_decay": REALS,
    "train.schedule": ["poly", "cosine", "linear", "constant", "step", "plateau"],
    "train.step_every": NUMBERS,
    "train.step_factor": REALS,
    "train.warmup": NUMBERS,
    "train.select": ["best", "last"],
    "train.precision": ["float32", "bfloat16", "float16"],
    "train.validate_every": [1, 2, -1, 0, 10**30],
    "train.checkpoint_every": [1, 2, -1, 0, 10**30],
    "train.flops": [1e3, 1e5, 1e6, -1.0, float("nan"), float("inf")],
    "method.name": ["gmd", "sharing", "dropout", "full", "ensemble", "mmin", "gmc", "rfnet", "nothing"],
    "method.cases": ["all", "full", "missing=1", "random=2", "random=99", "sample", "sample=size", "random=x"],
    "method.gradients": ["gmd", "mean"],
    "method.rule": ["sequential", "normalised", "simultaneous", "none"],
    "method.floor": REALS,
    "method.width": [1, 2, 8, 9, -1, 0, 10**9, 0.5, float("nan")],
    "method.layers": [0, 1, 2, -1, 10**9],
    "method.dropout": REALS,
    "task.error": ["l1", "mse", "l3"],
    "data.folds": [3, 4, 2, -1, 10**30],
    "data.fold": [0, 1, -1, 10**30],
}


def outcome_of(settings: Mapping[str, Any], run: Path, changes: Mapping[str, Any]) -> str:
    """Train, and say whether the settings were refused in one line; any other error fails the test."""
    try:
        anysubset.fit(settings, run=run)
    except InputError as error:
        if "\n" in str(error):
            raise AssertionError(f"{changes}: the message has several lines: {error}") from error
        return "refused"
    except Exception as error:
        raise AssertionError(f"{changes} ended in {type(error).__name__}: {error}") from error
    return "trained"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_random_settings_train_or_end_in_one_line(seed: int, tmp_path: Path):
    # 50 draws of one to five settings each: a training ends, or InputError says in one line why not.
    draw = random.Random(seed)
    root, outcomes = write_table(tmp_path / "table.npz", 3), {"trained": 0, "refused": 0}
    for number in range(50):
        changes = {name: draw.choice(CHOICES[name]) for name in draw.sample(list(CHOICES), draw.randint(1, 5))}
        settings = {**tiny(root), **changes}
        outcomes[outcome_of(settings, tmp_path / str(number), changes)] += 1
        log = tmp_path / str(number) / "metrics.jsonl"
        assert not log.exists() or "NaN" not in log.read_text(), changes
    assert min(outcomes.values()) > 0

"""Sweep files: their runs, and messages for faulty files."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from anysubset.errors import InputError
from anysubset.experiments.sweep import Planned, read_sweep

VARY: dict[str, Any] = {"method": {"gmd": {}, "full": {"method.name": "full"}}, "seed": [0, 1]}


def plan(folder: Path, **parts: Any) -> list[Planned]:
    """The runs of a sweep file with these parts; `settings` has a default."""
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({"settings": {"train.steps": 3}, **parts}, sort_keys=False))
    return list(read_sweep(path, folder / "out", parts.get("root")).runs)


def fault(folder: Path, text: str) -> str:
    path = folder / "sweep.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_sweep(path, folder / "out")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --------------------------------------------------------------------------------------------------- the file


def test_every_combination_is_a_run_in_the_order_of_the_file(tmp_path):
    runs = plan(tmp_path, vary={**VARY, "rate": {"fast": {"train.lr": 0.1, "train": {"clip": 1}}}})
    assert [run.name for run in runs] == ["gmd/0/fast", "gmd/1/fast", "full/0/fast", "full/1/fast"]
    assert runs[2].folder == tmp_path / "out/full/0/fast"
    assert runs[2].variants == {"method": "full", "seed": "0", "rate": "fast"}
    experiment = runs[3].experiment
    assert (experiment.method, experiment.seed, experiment.train.steps) == ({"name": "full"}, 1, 3)
    assert (experiment.train.lr, experiment.train.clip) == (0.1, 1)


def test_later_settings_replace_earlier_ones(tmp_path):
    (tmp_path / "base.yaml").write_text("train: {steps: 1, batch: 1, lr: 0.1}\nseed: 5\n")
    (tmp_path / "other.yaml").write_text("train: {steps: 7}\n")
    (run, other) = plan(
        tmp_path,
        base="base.yaml",
        settings={"train.batch": 2, "train": {"steps": 2}},
        vary={"first": {"a": {"train.steps": 3}, "b": {"base": "other.yaml"}}, "train.clip": [1]},
    )
    train = run.experiment.train
    assert (train.steps, train.batch, train.lr, train.clip, run.experiment.seed) == (3, 2, 0.1, 1, 5)
    # A variant with a base of its own starts from its files.
    assert (other.experiment.train.steps, other.experiment.train.batch, other.experiment.seed) == (7, 4, 0)


def test_skipped_combinations_are_left_out(tmp_path):
    skip = [{"method": "gmd", "seed": 1}, {"method": "full", "seed": 0}]
    assert [run.name for run in plan(tmp_path, vary=VARY, skip=skip)] == ["gmd/0", "full/1"]
    assert [run.name for run in plan(tmp_path, vary=VARY, skip=[{"seed": 0}])] == ["gmd/1", "full/1"]


def test_a_variant_with_another_method_takes_the_default_options_of_that_method(tmp_path):
    variants = {"same": {"method.name": "gmd"}, "full": {"method.name": "full"}, "few": {"method.cases": "random=2"}}
    runs = plan(tmp_path, settings={"method": {"name": "gmd", "cases": "all"}}, vary={"method": variants})
    assert [run.experiment.method for run in runs] == [
        {"name": "gmd", "cases": "all"},
        {"name": "full"},
        {"name": "gmd", "cases": "random=2"},
    ]


def test_a_relative_data_root_refers_to_the_root_folder(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump({"settings": {}, "vary": {"data.root": ["a.npz"], "seed": [0]}}))
    (run,) = read_sweep(path, tmp_path).runs
    assert run.experiment.data.root == "a.npz"
    (run,) = read_sweep(path, tmp_path, Path("/data")).runs
    assert run.experiment.data.root == "/data/a.npz"
    path.write_text(yaml.safe_dump({"settings": {"data.root": "/else/a.npz"}, "vary": {"seed": [0]}}))
    (run,) = read_sweep(path, tmp_path, Path("/data")).runs
    assert run.experiment.data.root == "/else/a.npz"


def test_methods_share_a_missingness_file_and_other_settings_of_the_draw_have_another(tmp_path):
    vary = {
        "rate": {
            "none": {"missingness.seed": 4},
            "thin": {"missingness": {"rate": 0.3}},
            "thinner": {"missingness.rate": 0.5},
        },
        "method": {"gmd": {}, "whole": {"method.name": "full", "data.complete_only": True}},
        "fold": {"a": {"data.fold": 0}, "b": {"data.fold": 1}},
    }
    runs = plan(tmp_path, settings={"data.folds": 5, "data.root": "some/digits.npz"}, vary=vary)
    assert [run.missingness for run in runs[::4]] == [
        {},
        {"rate": 0.3, "split": "train", "seed": 0},
        {"rate": 0.5, "split": "train", "seed": 0},
    ]
    files = [run.experiment.data.missingness for run in runs]
    assert files[:4] == [None] * 4
    assert files[4:6] == files[6:8]
    assert files[8:10] == files[10:]
    assert len(set(files[4:])) == 4
    assert str(files[4]).startswith(str(tmp_path / "out/missingness/digits-rate0.3-seed0-"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("settings: {}\nvary: {seed: [0]}\nskip: {seed: 0}", "skip is a list of combinations, such as [{method"),
        ("settings: {}\nvary: {seed: [0]}\nskip: [{sed: 0}]", "Unknown axis in skip of"),
        ("settings: {}\nvary: {seed: [0]}\nskip: [{seed: 1}]", "Unknown variant of seed in skip of"),
        ("[1]", "holds no sweep"),
        ("{a: b", "cannot be read"),
        ("{vary: {seed: [0]}}", "run 0: No experiment to start from"),
        ("{base: gone.yaml, vary: {seed: [0]}}", "There is no experiment file"),
        ("{settings: 3, vary: {seed: [0]}}", "`settings` is a mapping"),
        ("{settings: {}}", "needs axes under `vary`"),
        ("{setings: {}, vary: {seed: [0]}}", "Did you mean 'settings'?"),
        ("{settings: {}, vary: {sead: [0]}}", "run 0: Unknown setting 'sead'. Did you mean 'seed'?"),
        ("{settings: {}, vary: {m: {a: {train.stepz: 1}}}}", "run a: Unknown setting 'train.stepz'"),
        ("{settings: {}, vary: {train.steps: [0]}}", "train.steps must be at least 1"),
        ("{settings: {}, vary: {train.steps: [few]}}", "run few: A setting cannot be read"),
        ("{settings: {method.name: gmd}, vary: {method: [full]}}", "method is a group of settings (method.name)"),
        ("{settings: {}, vary: {seed: [0, 0]}}", "axis 'seed': 0 comes twice"),
        ("{settings: {}, vary: {seed: []}}", "axis 'seed' must be a list of values, or variants"),
        ("{settings: {}, vary: {seed: 3}}", "axis 'seed' must be a list of values, or variants"),
        ("settings: {}\nvary:\n  a:\n    b: {seed: 0}\n    b: {seed: 1}\n", "'b' comes twice in line 4"),
        ("{settings: {}, vary: {a: {b: 1}}}", "variant 'b' must be a mapping of settings"),
        ("{settings: {}, vary: {a: {../b: {}}}}", "cannot be called '../b'"),
        ("{settings: {}, vary: {data.root: [a/b.npz]}}", "cannot be called 'a/b.npz'"),
        ("{settings: {}, vary: {a: {missingness: {}}}}", "can be called 'missingness'"),
        ("{settings: {}, vary: {seed: [0]}, evaluate: test}", "`evaluate` is a list of splits"),
        ("{settings: {}, vary: {seed: [0]}, evaluate: [test, test]}", "each once"),
        (
            "{settings: {}, vary: {missingness.rat: [0.1]}}",
            "setting 'missingness.rat'. Did you mean 'missingness.rate'",
        ),
        ("{settings: {}, vary: {missingness.rate: [much]}}", "missingness.rate is a share from 0 to 1, not 'much'"),
        ("{settings: {}, vary: {missingness: [0.3]}}", "Unknown setting 'missingness'"),
        ("{settings: {}, vary: {missingness.seed: [-1]}}", "missingness.seed is 0 or more, not -1"),
        (
            "{settings: {missingness.rate: 0.1, missingness.absent: [t1]}, vary: {seed: [0]}}",
            "Give exactly one of missingness.rate, missingness.rate_by, missingness.absent, missingness.monotone; "
            "missingness.rate and missingness.absent came.",
        ),
        ("{settings: {missingness.rate: 0.1, data.missingness: a}, vary: {seed: [0]}}", "data.missingness to read"),
        ("{settings: {}, vary: {holes.rate: [0.1]}}", "Setting holes.rate is now called missingness.rate."),
        ("{settings: {holes.rates.t1: 0.1}, vary: {seed: [0]}}", "is now called missingness.rate_by.t1."),
        ("{settings: {data.holes: a}, vary: {seed: [0]}}", "Setting data.holes is now called data.missingness."),
    ],
)
def test_a_faulty_file_is_refused_in_one_line(tmp_path, text, words):
    assert words in fault(tmp_path, text)


def test_missingness_that_is_not_a_mapping_is_refused(tmp_path):
    assert "Unknown setting" in fault(tmp_path, "{settings: {missingness: 3}, vary: {seed: [0]}}")

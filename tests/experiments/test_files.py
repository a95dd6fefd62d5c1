"""Joining files of settings, and the name of the recipe."""

from pathlib import Path

import pytest
import yaml

from anysubset.experiments.files import changed_recipe, joined_settings, read_experiment, write_experiment
from anysubset.experiments.settings import INCIDENTAL


@pytest.fixture
def write(tmp_path: Path):
    """`write("gmd_common", train={"steps": 3})`: a YAML file of that name."""

    def to_file(stem: str, **settings: object) -> Path:
        path = tmp_path / f"{stem}.yaml"
        path.write_text(yaml.safe_dump(settings))
        return path

    return to_file


def test_settings_of_several_files_are_joined_in_any_order(write):
    data = write("lgg", data={"name": "lgg", "root": "lgg"}, seed=3)
    recipe = write("gmd_common", method={"name": "gmd", "cases": "all"}, train={"steps": 3})
    for paths in ([data, recipe], [recipe, data]):
        experiment = read_experiment(paths)
        assert (experiment.data.name, experiment.seed, experiment.train.steps) == ("lgg", 3, 3)
        assert experiment.method == {"name": "gmd", "cases": "all"}
        assert experiment.recipe == "gmd_common"


def test_a_setting_in_two_files_is_refused_unless_both_have_the_same_value(write, fault):
    one = write("one", data={"augment": {"flip": 0.0}}, train={"steps": 3})
    other = write("other", data={"augment": {"flip": 0.5}}, train={"steps": 3})
    line = fault(read_experiment, [one, other])
    assert line == f"data.augment.flip is 0.0 in {one} and 0.5 in {other}: leave one of them out."
    same = write("same", train={"steps": 3, "batch": 2})
    assert read_experiment([one, same]).train.batch == 2


def test_regions_are_one_setting(write, fault):
    one, other = write("one", data={"regions": {"a": [1]}}), write("other", data={"regions": {"b": [1]}})
    assert "data.regions is {'a': [1]} in" in fault(read_experiment, [one, other])


def test_every_file_is_checked_by_itself(write, fault, tmp_path):
    good = write("good", seed=1)
    assert "Unknown setting 'sed'. Did you mean 'seed'?" in fault(read_experiment, [good, write("bad", sed=1)])
    assert "gone.yaml" in fault(read_experiment, [good, tmp_path / "gone.yaml"])
    assert "is a sweep" in fault(read_experiment, [good, write("sweep", vary={"seed": [0]})])


def test_the_recipe_is_named_after_the_files_with_settings_of_method_or_train(write):
    data, network = write("data", data={"root": "x"}, seed=1), write("wide", method={"name": "gmd"})
    training = write("long", train={"steps": 9})
    assert "recipe" not in joined_settings([data])
    assert read_experiment([data]).recipe is None
    assert read_experiment([data, network, training]).recipe == "wide + long"
    assert read_experiment([data, network], {"recipe": "mine", "train.steps": 3}).recipe == "mine"
    assert read_experiment(None, {"train.steps": 3}).recipe is None


def test_overriding_a_setting_of_a_recipe_marks_its_name_as_changed(write):
    path = write("common", method={"name": "gmd"}, train={"steps": 3})
    recipe = {name: read_experiment(path, {name: value}).recipe for name, value in {
        "train.steps": 4, "method.cases": "all", "train.lr": 0.5,
    }.items()}  # fmt: skip
    assert set(recipe.values()) == {"common (changed)"}
    # No change: values of the file, defaults, the name of the method, the data and the machine.
    same = {"train.steps": 3, "train.batch": 4, "method.name": "full", "data.root": "x", "train.device": "cpu"}
    assert read_experiment(path, {**same, "seed": 5}).recipe == "common"
    assert changed_recipe("common (changed)", {"train.steps": 3}, {"train.steps": 5}) == "common (changed)"
    assert changed_recipe(None, {}, {"train.steps": 5}) is None


def test_the_recipe_is_written_with_the_experiment_and_may_differ_on_resuming(write, tmp_path):
    experiment = read_experiment(write("common", train={"steps": 3}))
    write_experiment(experiment, tmp_path / "experiment.yaml")
    assert read_experiment(tmp_path / "experiment.yaml") == experiment
    # Settings without a recipe do not get the name of the file that they were written to.
    write_experiment(read_experiment(None, {"train.steps": 3}), tmp_path / "experiment.yaml")
    assert read_experiment(tmp_path / "experiment.yaml").recipe is None
    assert "recipe" in INCIDENTAL


def test_regions_may_have_names_that_yaml_takes_for_other_values(write, tmp_path):
    names = ("no", "yes", "On", "off", "y", "n", "3", "1.5", "null", "true", "2020-01-01")
    regions = ", ".join(f"{name}: [{value}]" for value, name in enumerate(names, start=1))
    path = tmp_path / "names.yaml"
    path.write_text(f"data: {{name: volumes, modalities: [t1], regions: {{{regions}}}}}\n")
    experiment = read_experiment(path)
    assert experiment.data.regions == {name: [value] for value, name in enumerate(names, start=1)}
    write_experiment(experiment, tmp_path / "again.yaml")
    assert read_experiment(tmp_path / "again.yaml").data.regions == experiment.data.regions


@pytest.mark.parametrize("name", [False, True, 1, None])
def test_regions_in_python_are_named_by_text(fault, name):
    assert f"data.regions has the name {name!r}: put it in quotes" in fault(
        read_experiment, None, {"data.regions": {name: [1]}}
    )

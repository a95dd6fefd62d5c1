from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
import yaml

from anysubset.cli import main
from anysubset.errors import InputError
from anysubset.experiments.data_settings import AugmentSettings, DataSettings, ReadingSettings
from anysubset.experiments.files import current_name, read_experiment, read_run_experiment, write_experiment
from anysubset.experiments.settings import INCIDENTAL, RENAMED, Experiment, TaskSettings, flatten
from anysubset.experiments.train_settings import TrainSettings

EVERYTHING = Experiment(
    seed=3,
    recipe="gmd_paper",
    init="runs/before",
    data=DataSettings(
        name="volumes",
        root="some where/ünïcode",
        splits="mine.json",
        modalities=["t1", "t2"],
        regions={"no": [1], "WT": [1, 2]},
        skull_stripped=False,
        resample="t1",
        spacing=[1.0, 0.9, 5.0],
        normalise="minmax",
        clip=[1.0, 99.0],
        cache="/tmp/cache",
        workers=2,
        group="(.+)_.",
        augment=AugmentSettings(flip=0.0, affine=1.0, rotation=10.0, intensity=0.2, foreground=0.25),
        folds=4,
        fold=3,
        missingness="missingness.json",
        complete_only=True,
        as_stored=["t2"],
        reading=ReadingSettings(
            modalities={"t1": "t one", "t2": "t two"},
            target="labels",
            kind="classes",
            column=0,
            id="name",
            split="part",
            images=["t1"],
            padding="front",
            words="words.csd",
            clean="zero",
            empty="drop",
        ),
    ),
    task=TaskSettings(
        patch=[16, 16],
        pool="sample",
        cross_entropy=0.5,
        overlap=0.25,
        window="uniform",
        mirror=True,
        smallest={"ET": 500, "no": 10},
        threshold={"ET": 0.4, "no": 0.6},
        error="mse",
    ),
    method={"name": "gmd", "cases": "random=2", "width": 0.25, "encoders": {"text": "some where/bert"}},
    train=TrainSettings(
        steps=7,
        batch=2,
        micro_batches=2,
        clip=0.5,
        flops=1e9,
        optimizer="adamw",
        betas=[0.8, 0.99],
        amsgrad=True,
        lr=1e-5,
        rates={"network.stems.text.pretrained.*": 1e-6},
        weight_decay=0.0,
        schedule="step",
        step_every=4,
        step_factor=0.5,
        warmup=3,
        select="last",
        calibrate=False,
        stages={"first": {"lr": 1e-3, "rates": {"*.bias": 1e-4}}, "second": {"optimizer": "sgd", "momentum": 0.9}},
        precision="bfloat16",
        channels_last=True,
        validate_every=5,
        checkpoint_every=2,
        log_every=1,
        device="cuda:1",
    ),
)

# Settings that contradict those of EVERYTHING.
SGD_ON_PLATEAU = Experiment(
    data=DataSettings(augment=AugmentSettings(nnunet=True)),
    train=TrainSettings(
        optimizer="sgd",
        momentum=0.9,
        nesterov=True,
        schedule="plateau",
        plateau_patience=3,
        plateau_factor=0.5,
        patience=4,
        compile=True,
    ),
)


def written(folder: Path, text: str) -> Path:
    path = folder / "experiment.yaml"
    path.write_text(text)
    return path


def fault(*arguments: object) -> str:
    """The one-line message of the InputError that reading an experiment raises."""
    with pytest.raises(InputError) as caught:
        read_experiment(*arguments)
    line = str(caught.value)
    assert "\n" not in line
    return line


# ------------------------------------------------------------------------------------------ reading and writing


@pytest.mark.parametrize(
    "experiment", [Experiment(), EVERYTHING, SGD_ON_PLATEAU], ids=["defaults", "everything", "sgd on plateau"]
)
def test_a_written_experiment_is_read_back_unchanged(tmp_path, experiment):
    write_experiment(experiment, tmp_path / "e.yaml")
    assert read_experiment(tmp_path / "e.yaml") == experiment


def test_every_setting_of_the_round_trip_differs_from_its_default():
    defaults, changed = Experiment().flat(), [EVERYTHING.flat(), SGD_ON_PLATEAU.flat()]
    same = [name for name in defaults if all(defaults[name] == flat.get(name) for flat in changed)]
    assert len(defaults) > 25
    # No other name of the dataset and the method goes with the settings of EVERYTHING.
    assert set(same) <= {"data.name", "method", "method.name"}


def test_without_a_file_every_setting_has_its_default():
    assert read_experiment(None) == Experiment()


def test_settings_that_a_file_lacks_have_their_defaults(tmp_path):
    experiment = read_experiment(written(tmp_path, "data: {augment: {flip: 0}}\ntrain: {steps: 5}\n"))
    assert experiment == replace(
        Experiment(),
        recipe="experiment",  # The name of the file.
        data=DataSettings(augment=AugmentSettings(flip=0)),
        train=TrainSettings(steps=5),
    )


def test_an_experiment_is_frozen():
    with pytest.raises(FrozenInstanceError):
        Experiment().seed = 1
    with pytest.raises(FrozenInstanceError):
        Experiment().train.steps = 1


# ---------------------------------------------------------------------------------------------------- overrides


def test_overrides_replace_settings_of_the_file_and_leave_the_others(tmp_path):
    path = written(tmp_path, "seed: 1\ntrain: {steps: 5, batch: 2}\nmethod: {name: gmd, cases: all}\n")
    experiment = read_experiment(path, {"train.steps": 9, "data.augment.flip": 0.25, "method.floor": 0.5})
    assert (experiment.seed, experiment.train.steps, experiment.train.batch) == (1, 9, 2)
    assert experiment.data.augment.flip == 0.25
    assert experiment.method == {"name": "gmd", "cases": "all", "floor": 0.5}


def test_numbers_are_converted_to_the_type_of_the_setting(tmp_path):
    experiment = read_experiment(written(tmp_path, "train: {lr: 1}\n"), {"train.weight_decay": 0})
    assert (experiment.train.lr, type(experiment.train.lr)) == (1.0, float)
    assert type(experiment.train.weight_decay) is float
    # YAML reads 1e-3 as a string, since it has no dot.
    assert read_experiment(written(tmp_path, "train: {lr: 1e-3}\n")).train.lr == 0.001


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("train.steps", "many"),
        ("train.steps", 3.5),
        ("train.steps", True),
        ("train.lr", "fast"),
        ("data.modalities", "t1"),
        ("data.regions", {"WT": 1}),
        ("data.regions", 3),
        ("task.patch", 16),
        ("task.mirror", "perhaps"),
        ("seed", None),
        ("train.steps", None),
        ("data.root", None),
        ("data.workers", None),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_with_the_name_of_the_setting(tmp_path, name, value):
    assert name in fault(None, {name: value})
    nested = value
    for part in reversed(name.split(".")):
        nested = {part: nested}
    assert name in fault(written(tmp_path, yaml.safe_dump(nested)))


# ------------------------------------------------------------------------------------------------ wrong names


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("sed", "seed"),
        ("train.stepz", "train.steps"),
        ("task.ptch", "task.patch"),
        ("data.augment.flips", "data.augment.flip"),
        ("trian.steps", "train"),
    ],
)
def test_an_unknown_setting_is_refused_with_the_nearest_name(tmp_path, name, nearest):
    nested: object = 1
    for part in reversed(name.split(".")):
        nested = {part: nested}
    unknown = name if nearest.count(".") else name.split(".")[0]
    for line in (fault(None, {name: 1}), fault(written(tmp_path, yaml.safe_dump(nested)))):
        assert f"Unknown setting {unknown!r}. Did you mean {nearest!r}?" in line


def test_names_of_regions_and_of_method_options_are_not_checked(tmp_path):
    text = "data: {regions: {lesion: [7], core: [7, 9]}}\nmethod: {name: gmd, whatever: 1}\n"
    experiment = read_experiment(written(tmp_path, text))
    assert experiment.data.regions == {"lesion": [7], "core": [7, 9]}
    assert list(experiment.data.regions) == ["lesion", "core"]
    # The method checks its options when it is created.
    assert experiment.method == {"name": "gmd", "whatever": 1}


@pytest.mark.parametrize("overrides", [None, {"train.steps": 3, "method.name": "full"}])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: 3", "train is a group of settings"),
        ("train: [steps]", "train is a group of settings"),
        (
            "data: {augment: 0.5}",
            "data.augment is a group of settings (flip, affine, rotation, intensity, foreground, nnunet), not 0.5",
        ),
        ("train:", "train"),
        ("method: gmd", "method"),
        ("method: 3", "method"),
    ],
)
def test_a_group_given_as_a_value_is_refused(tmp_path, text, words, overrides):
    assert words in fault(written(tmp_path, text), overrides)


def test_a_method_without_a_name_is_gmd(tmp_path):
    assert read_experiment(written(tmp_path, "method: {cases: all}")).method == {"name": "gmd", "cases": "all"}


# -------------------------------------------------------------------------------------------------- wrong files


@pytest.mark.parametrize("text", ["train: {steps: 3", "a: b: c", "\ttrain: 1"])
def test_a_file_that_is_not_yaml_is_refused_in_one_line(tmp_path, text):
    assert "experiment.yaml is not YAML" in fault(written(tmp_path, text))


def test_a_file_that_is_not_utf8_is_refused(tmp_path):
    path = tmp_path / "experiment.yaml"
    path.write_bytes(b"\xff\xfe\x00seed: 1")
    assert "cannot be read as text in UTF-8" in fault(path)


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "- 1\n- 2\n", "steps", "3"])
def test_a_file_without_settings_is_refused_with_an_example(tmp_path, text):
    line = fault(written(tmp_path, text))
    assert "experiment.yaml holds no settings" in line
    assert "train: {steps: 100}" in line


def test_a_sweep_file_is_refused_as_an_experiment_with_the_right_command(tmp_path):
    path = written(tmp_path, "settings: {train.steps: 5}\nvary: {seed: [0, 1]}\n")
    assert fault(path) == f"{path} is a sweep, with a part `vary`: run `anysubset sweep {path}`."


def test_reading_yaml_executes_no_code(tmp_path):
    text = f"seed: !!python/object/apply:pathlib.Path.touch [{tmp_path / 'touched'}]\n"
    assert "is not YAML" in fault(written(tmp_path, text))
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("name", ["gone.yaml", "."])
def test_a_missing_file_is_named(tmp_path, name):
    assert f"There is no experiment file {tmp_path / name}" in fault(tmp_path / name)


# ------------------------------------------------------------------------------------------------ out of range


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", -1),
        ("data.workers", -1),
        ("data.augment.flip", 1.5),
        ("data.augment.foreground", -0.1),
        ("train.steps", 0),
        ("train.batch", 0),
        ("train.validate_every", -2),
        ("train.checkpoint_every", 0),
        ("train.log_every", 0),
        ("train.lr", 0.0),
        ("train.lr", float("nan")),
        ("train.rates", {"*": 0.0}),
        ("train.weight_decay", -0.1),
        ("train.warmup", -1),
        ("train.flops", 0.0),
        ("train.betas", [0.9]),
        ("train.betas", [0.9, 1.0]),
        ("data.folds", 2),
        ("data.fold", 1),
        ("data.fold", -1),
    ],
)
def test_numbers_out_of_range_are_refused(name, value):
    assert name in fault(None, {name: value})


@pytest.mark.parametrize(
    ("name", "value", "nearest"),
    [
        ("train.schedule", "cosin", "cosine"),
        ("train.precision", "float8", "float32"),
        ("train.optimizer", "adamx", "adam"),
        ("train.select", "lst", "last"),
        ("train.device", "gpu", None),
        ("train.device", "cuda:x", "cuda"),
    ],
)
def test_words_that_are_no_choice_are_refused(name, value, nearest):
    line = fault(None, {name: value})
    assert f"Unknown {name} {value!r}." in line
    assert "Choose from: " in line
    if nearest:
        assert f"Did you mean '{nearest}" in line


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:12"])
def test_devices_by_name(device):
    assert read_experiment(None, {"train.device": device}).train.device == device


# ------------------------------------------------------------------------------------- optimizers and schedules


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"momentum": 0.9}, "train.momentum is for train.optimizer sgd, not for adam."),
        ({"optimizer": "adamw", "nesterov": True}, "train.nesterov is for train.optimizer sgd, not for adamw."),
        ({"optimizer": "sgd", "amsgrad": True}, "train.amsgrad is for train.optimizer adam or adamw, not for sgd."),
        ({"optimizer": "sgd", "betas": [0.5, 0.9]}, "train.betas is for train.optimizer adam or adamw, not for sgd."),
        ({"optimizer": "sgd", "nesterov": True}, "train.nesterov needs train.momentum above 0, such as 0.9."),
        ({"optimizer": "sgd", "momentum": 1.0}, "train.momentum must be from 0 to below 1, not 1.0."),
        ({"step_every": 3}, "train.step_every is for train.schedule step, not for poly."),
        ({"schedule": "plateau", "step_factor": 0.5}, "train.step_factor is for train.schedule step, not for plateau."),
        ({"schedule": "cosine", "plateau_patience": 3}, "train.plateau_patience is for train.schedule plateau"),
        ({"schedule": "step", "plateau_factor": 0.5, "step_every": 3}, "train.plateau_factor is for train.schedule"),
        ({"schedule": "step"}, "train.schedule step needs train.step_every"),
        ({"schedule": "step", "step_every": 0}, "train.step_every must be at least 1, not 0."),
        ({"schedule": "step", "step_every": 3, "step_factor": 1.0}, "train.step_factor must be above 0 and below 1"),
        ({"schedule": "plateau", "plateau_patience": -1}, "train.plateau_patience must be 0 validations or more"),
        ({"schedule": "plateau", "plateau_factor": 0.0}, "train.plateau_factor must be above 0 and below 1, not 0.0."),
        ({"patience": 0}, "train.patience must be at least 1, not 0."),
        ({"patience": 2, "select": "last"}, "train.patience waits for a new best score: it is for train.select best"),
        ({"flops": 1e9, "compile": True}, "train.flops needs train.compile false"),
    ],
)
def test_options_that_do_not_go_with_the_others_are_refused(settings, line):
    assert line in fault(None, {f"train.{name}": value for name, value in settings.items()})


def test_rates_are_one_setting_with_dots_in_its_names(tmp_path):
    path = written(tmp_path, "train: {rates: {network.stems.text.*: 2e-5}}\n")
    experiment = read_experiment(path)
    assert experiment.train.rates == {"network.stems.text.*": 2e-5}
    assert experiment.flat()["train.rates"] == {"network.stems.text.*": 2e-5}
    assert "train.rates is a group of settings, not 3." in fault(None, {"train.rates": 3})


def test_an_old_name_is_refused_with_the_new_one(tmp_path):
    current = "is now called train.rates, by parameter names, such as {network"
    assert fault(None, {"train.bert_lr": 1e-5}).startswith(f"Setting train.bert_lr {current}")
    path = written(tmp_path, "train: {bert_lr: 1e-5}\n")
    assert fault(path).startswith(f"Setting train.bert_lr in {path} {current}")


def test_an_old_name_is_refused_on_the_command_line(capsys):
    assert main(["fit", "experiment.yaml", "--train.bert_lr", "1e-5"]) == 2
    assert "anysubset: Setting train.bert_lr is now called train.rates" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------- stages


def test_settings_of_a_stage_replace_those_of_the_run(tmp_path):
    text = "train: {steps: 50, batch: 8, stages: {first: {lr: 1e-2, steps: 20, rates: {a.*: 1e-4}}}}\n"
    train = read_experiment(written(tmp_path, text), {"train.stages.first.warmup": 2}).train
    assert train.stages == {"first": {"lr": 0.01, "steps": 20, "rates": {"a.*": 1e-4}, "warmup": 2}}
    assert train.at_stage("first") == TrainSettings(steps=20, batch=8, lr=0.01, rates={"a.*": 1e-4}, warmup=2)
    assert train.at_stage("second") == TrainSettings(steps=50, batch=8)


def test_settings_of_a_stage_replace_the_defaults_of_the_method():
    train = TrainSettings(lr=1.0, batch=8, stages={"first": {"lr": 3.0, "optimizer": "sgd"}})
    defaults = {"lr": 2.0, "warmup": 5, "betas": [0.5, 0.9]}
    # SGD has no betas, so those of the method's Adam are dropped.
    assert train.at_stage("first", defaults) == TrainSettings(lr=3.0, batch=8, warmup=5, optimizer="sgd")
    assert train.at_stage("second", defaults) == TrainSettings(lr=2.0, batch=8, warmup=5, betas=[0.5, 0.9])


def test_flat_names_of_stage_settings_contain_the_stage_and_rates_stay_one_setting():
    flat = EVERYTHING.flat()
    assert flat["train.stages.first.rates"] == {"*.bias": 1e-4}
    assert flat["train.stages.second.momentum"] == 0.9


def test_a_stage_with_another_optimizer_or_schedule_resets_the_options_of_the_former_one():
    train = TrainSettings(betas=[0.5, 0.9], amsgrad=True, schedule="step", step_every=7)
    changed = train.changed({"optimizer": "sgd", "momentum": 0.9, "schedule": "constant"})
    assert changed == TrainSettings(optimizer="sgd", momentum=0.9, schedule="constant")
    # The same optimizer keeps its options.
    assert train.changed({"optimizer": "adam"}) == train


@pytest.mark.parametrize(
    ("stage", "line"),
    [
        ({"lr": -1.0}, "train.stages.first: train.lr must be positive, not -1.0, and at most 3.4e38."),
        ({"momentum": 0.9}, "train.stages.first: train.momentum is for train.optimizer sgd, not for adam."),
        ({"device": "cpu"}, "train.stages.first: Unknown setting of a stage 'device'."),
        ({"lrr": 1.0}, "train.stages.first: Unknown setting 'train.lrr'. Did you mean 'train.lr'?"),
        ({"lr": "fast"}, "A setting of train.stages.first cannot be read: "),
        ({"lr": None}, "train.stages.first: train.lr has no value"),
        (3, "train.stages"),
    ],
)
def test_a_wrong_setting_of_a_stage_is_refused_with_the_name_of_the_stage(stage, line):
    assert line in fault(None, {"train.stages": {"first": stage}})


def test_a_stage_cannot_set_its_steps_under_a_budget_of_flops():
    settings = {"train.flops": 1e9, "train.stages": {"first": {"steps": 3}}}
    assert "train.stages.first: steps cannot be set for a stage if train.flops is set" in fault(None, settings)


# -------------------------------------------------------------------------------------------------- other views


def test_on_other_data_only_the_root_and_the_settings_that_refer_to_ids_change():
    moved = EVERYTHING.at("/elsewhere")
    elsewhere = {"root": "/elsewhere", "splits": None, "folds": None, "fold": 0, "missingness": None}
    elsewhere |= {"group": None, "complete_only": False}
    assert moved == replace(EVERYTHING, data=replace(EVERYTHING.data, **elsewhere))
    assert EVERYTHING.at(None) is EVERYTHING


def test_flat_names_are_dotted_and_regions_are_one_setting():
    flat = EVERYTHING.flat()
    assert flat["data.augment.flip"] == 0.0
    assert flat["train.device"] == "cuda:1"
    assert flat["data.regions"] == {"no": [1], "WT": [1, 2]}
    assert flat["data.reading.modalities"] == {"t1": "t one", "t2": "t two"}
    assert flatten({"a": {"b": {"c": 1}, "d": 2}, "e": 3}) == {"a.b.c": 1, "a.d": 2, "e": 3}
    assert set(INCIDENTAL) <= set(flat)


def test_the_order_of_regions_survives_writing(tmp_path):
    # The order decides which label a voxel in several regions gets.
    experiment = replace(Experiment(), data=DataSettings(regions={"z": [1, 2], "a": [1]}))
    write_experiment(experiment, tmp_path / "e.yaml")
    assert list(read_experiment(tmp_path / "e.yaml").data.regions) == ["z", "a"]


def test_an_anchored_experiment_has_absolute_paths(tmp_path, monkeypatch):
    (tmp_path / "drawn.json").write_text("{}")
    (tmp_path / "bert").mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans.csv").write_text("id,group\n")
    settings = {"data.root": "patients", "data.splits": "drawn.json", "data.group": "scans.csv"}
    settings["method.encoders"] = {"text": "bert", "audio": "nowhere"}
    anchored = read_experiment(None, settings).anchored()
    assert anchored.method["encoders"] == {"text": str(tmp_path / "bert"), "audio": "nowhere"}
    assert anchored.data.root == str(tmp_path / "patients")
    assert anchored.data.splits == str(tmp_path / "drawn.json")
    assert anchored.data.group == str(tmp_path / "scans.csv")
    assert read_experiment(None, {"data.group": "(.+)_."}).anchored().data.group == "(.+)_."
    # A column of groups stays a name, even beside a folder of that name.
    assert read_experiment(None, {"data.group": "bert"}).anchored().data.group == "bert"
    # A splits file that is not in the working directory is looked up in the data root.
    beside = read_experiment(None, {"data.root": "patients", "data.splits": "splits.json"}).anchored()
    assert beside.data.splits == "splits.json"


def test_a_setting_of_a_group_that_was_written_as_null_can_be_overridden(tmp_path: Path):
    write_experiment(read_experiment(None, {"data.name": "table"}), tmp_path / "whole.yaml")
    experiment = read_experiment(tmp_path / "whole.yaml", {"data.reading.modalities.text": "words.csd"})
    assert experiment.data.reading.modalities == {"text": "words.csd"}


# --------------------------------------------------------------------------------------------------- old names


def test_a_renamed_setting_is_refused_with_its_new_name(tmp_path: Path):
    path = tmp_path / "old.yaml"
    path.write_text("data: {holes: drawn.json}")
    assert fault(path) == f"Setting data.holes in {path} is now called data.missingness."
    assert fault(None, {"data.holes": "a"}) == "Setting data.holes is now called data.missingness."


def test_a_renamed_value_is_refused_with_its_new_name(tmp_path: Path):
    path = written(tmp_path, "data: {name: features}")
    assert fault(path) == f"The value 'features' of data.name in {path} is now called 'table'."
    assert fault(None, {"data.name": "features"}) == "The value 'features' of data.name is now called 'table'."


def test_every_new_name_is_current_and_the_longest_old_name_counts():
    assert current_name("holes.rate") == "missingness.rate"
    assert current_name("holes.rates.t1") == "missingness.rate_by.t1"
    assert current_name("data.reading.group") == "data.group"
    assert current_name("data.holesome") is None
    assert not [new for new in RENAMED.values() if current_name(new) is not None]


def test_a_run_folder_of_an_earlier_version_is_refused_in_one_line(tmp_path: Path):
    (tmp_path / "experiment.yaml").write_text("seed: 0\ndata: {holes: null}")
    with pytest.raises(InputError) as refused:
        read_run_experiment(tmp_path)
    assert str(refused.value) == (
        f"Run folder {tmp_path} is from an earlier version: "
        "Setting data.holes is now called data.missingness. Train it again."
    )
    with pytest.raises(InputError, match="gone is no run folder"):
        read_run_experiment(tmp_path / "gone")


@pytest.mark.parametrize("name", ["recipe", "data.splits", "data.reading.target", "method.cases", "train.device"])
def test_an_empty_text_is_refused_as_a_setting(name: str):
    with pytest.raises(InputError, match=name):
        read_experiment(None, {name: ""})

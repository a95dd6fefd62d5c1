"""A table as a data set: its task, groups, splits, batches and blocks; values of missing modalities never matter."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from anysubset import cli
from anysubset.batches import Observed
from anysubset.datasets.table import create_dataset, create_task
from anysubset.errors import InputError
from anysubset.evaluation.every_scenario import evaluate
from anysubset.experiments.data_settings import DataSettings, ReadingSettings
from anysubset.experiments.settings import TaskSettings
from anysubset.methods.classical import ClassicalMethod
from anysubset.methods.creation import create_method
from anysubset.methods.method import Step
from anysubset.methods.table import METHODS
from anysubset.methods.update import fill_gradients
from anysubset.scenarios import all_scenarios
from anysubset.scoring.scores import means
from anysubset.system import tensor_file
from anysubset.tables.arrays import write_table
from anysubset.tables.batching import batch_of
from anysubset.tables.dataset import BLOCK, TableDataset, present_in
from anysubset.tables.formats import read_table
from anysubset.tables.signature import Signature, read_signature
from anysubset.tables.standardisation import statistics
from anysubset.tables.table import Table
from anysubset.tasks.prediction import Prediction, Stream

NAMES = ("text", "audio", "vision")


def table_dataset(path: Path, name: str = "mosi", task: TaskSettings | None = None, **settings: object) -> TableDataset:
    """The dataset of a file."""
    made = create_dataset(DataSettings(name, str(path), **settings), task or TaskSettings())
    assert isinstance(made, TableDataset)
    return made


def vectors(folder: Path, samples: int = 30, **more: object) -> Path:
    """Two vectors a sample and a class of three; no splits."""
    generator = np.random.default_rng(0)
    y = np.arange(samples) % 3
    arrays = {"one": generator.normal(size=(samples, 4)) + y[:, None], "two": generator.normal(size=(samples, 2))}
    np.savez(folder / "vectors.npz", y=y, **arrays, **more)
    return folder / "vectors.npz"


# ----------------------------------------------------------------------------------------------------- the file


def test_the_task_follows_from_the_file(utterances, tmp_path):
    dataset = table_dataset(utterances)
    assert dataset.task.modalities == NAMES
    assert dataset.task.streams == {
        "text": Stream("sequence", 3),
        "audio": Stream("sequence", 2),
        "vision": Stream("sequence", 2),
    }
    assert (dataset.task.limits, dataset.task.classes) == ((-3.0, 3.0), ())
    assert {name: len(dataset.ids(name)) for name in dataset.splits} == {"train": 8, "val": 3, "test": 3, "all": 14}
    classes = table_dataset(vectors(tmp_path), "table", TaskSettings(), folds=3)
    assert (classes.task.classes, classes.task.limits) == (("0", "1", "2"), None)
    assert classes.task.modalities == ("one", "two")
    assert classes.headline == ("accuracy", "macro_f1", "weighted_f1")


def test_modalities_are_named_ordered_and_renamed(table_arrays, tmp_path, fault):
    arrays = table_arrays()
    renamed = {f"video{name[6:]}": array for name, array in arrays.items() if name.startswith("vision")}
    path = tmp_path / "renamed.npz"
    np.savez(path, **{name: array for name, array in arrays.items() if not name.startswith("vision")}, **renamed)
    reading = ReadingSettings(modalities={"vision": "video"})
    assert table_dataset(path, reading=reading).task.modalities == NAMES
    # v0/1 has audio alone.
    assert "Samples need at least one modality" in fault(
        table_dataset, path, modalities=["vision", "text"], reading=reading
    )
    reading = ReadingSettings(modalities={"vision": "video"}, empty="drop")
    partial = table_dataset(path, modalities=["vision", "text"], reading=reading)
    assert (partial.task.modalities, len(partial.ids("all"))) == (("vision", "text"), 13)
    assert "has no array 'vision'" in fault(table_dataset, path)
    reading = ReadingSettings(modalities={"visoin": "video"})
    assert "Unknown modality 'visoin'. Did you mean 'vision'?" in fault(table_dataset, path, reading=reading)


def test_present_modalities_are_those_of_the_file(utterances):
    # By hand: see `make_arrays`.
    expected = [("text",), ("audio",), ("vision",), ("text", "audio"), *[NAMES] * 4]
    assert table_dataset(utterances).present("train") == expected
    assert table_dataset(utterances).present("test") == [NAMES, NAMES, ("text", "audio")]


def test_statistics_are_those_of_the_training_samples_and_their_real_steps(tmp_path):
    arrays = {
        "y": np.array([0.0, 1.0, 2.0], np.float32),
        "text": np.array([[[1.0], [99.0]], [[3.0], [99.0]], [[4.0], [5.0]]], np.float32),
        "text_lengths": np.array([1, 1, 2]),
        "split": np.array(["train", "train", "val"]),
    }
    np.savez(tmp_path / "b3.npz", **arrays)
    dataset = table_dataset(tmp_path / "b3.npz", modalities=["text"])
    # By hand, B3 of our reference: of 1 and 3 the mean is 2 and the deviation 1, so 4 becomes 2 and 5 becomes 3.
    (mean, deviation) = dataset.signature.statistics["text"]
    assert (mean.item(), deviation.item()) == (2.0, 1.0)
    (block,) = dataset.samples("val")
    assert block.inputs["text"].values.tolist() == [[[2.0], [3.0]]]


def test_missingness_is_applied_before_statistics_are_computed(utterances, tmp_path):
    (tmp_path / "missingness.json").write_text(json.dumps({"present": {"v2/0": ["text"], "v3/1": ["audio", "vision"]}}))
    dataset = table_dataset(utterances, missingness=str(tmp_path / "missingness.json"))
    present = dict(zip(dataset.ids("train"), dataset.present("train"), strict=True))
    assert (present["v2/0"], present["v3/1"], present["v2/1"]) == (("text",), ("audio", "vision"), NAMES)
    whole = table_dataset(utterances)
    for name in NAMES:
        assert not torch.equal(dataset.signature.statistics[name][0], whole.signature.statistics[name][0])
    assert dataset.signature.fingerprints["present"] != whole.signature.fingerprints["present"]


def test_training_samples_that_lack_a_modality_can_be_dropped(utterances, tmp_path, fault):
    whole, dropped = table_dataset(utterances), table_dataset(utterances, complete_only=True)
    # By hand, from `make_arrays`: 0, 1, 2 and 3 of the training samples lack something; test sample 13 does, too.
    assert dropped.ids("train") == ("v2/0", "v2/1", "v3/0", "v3/1")
    assert dropped.present("train") == [NAMES] * 4
    assert (dropped.ids("val"), dropped.ids("test")) == (whole.ids("val"), whole.ids("test"))
    train = dropped.table.select(dropped.ids("train"))
    assert torch.equal(dropped.signature.statistics["text"][0], statistics(train)["text"][0])
    # What was taken away is lacking.
    (tmp_path / "missingness.json").write_text(json.dumps({"present": {"v2/0": ["text"], "v5/1": ["text"]}}))
    thin = table_dataset(utterances, complete_only=True, missingness=str(tmp_path / "missingness.json"))
    assert thin.ids("train") == ("v2/1", "v3/0", "v3/1")
    assert thin.ids("test") == whole.ids("test")
    (tmp_path / "all.json").write_text(json.dumps({"present": {sample: ["text"] for sample in dropped.ids("train")}}))
    assert "None of 8 training samples has every modality" in fault(
        table_dataset, utterances, complete_only=True, missingness=str(tmp_path / "all.json")
    )


def test_the_drawn_validation_split_does_not_depend_on_dropped_samples(rewritten):
    path = rewritten(split=np.array(["train"] * 11 + ["test"] * 3))
    whole, dropped = table_dataset(path), table_dataset(path, complete_only=True)
    assert dropped.ids("val") == whole.ids("val")
    assert set(dropped.ids("train")) < set(whole.ids("train"))


def test_a_modality_that_no_training_sample_has_is_refused(rewritten, fault):
    # Whoever is tested has one that was never learned. v1/0 has nothing else.
    path = rewritten(vision_present=np.array([False] * 8 + [True] * 6))
    assert "No training sample has 'vision'" in fault(table_dataset, path, reading=ReadingSettings(empty="drop"))


# --------------------------------------------------------------------------------------------------- the groups


def test_groups_come_from_the_files_own_column_or_from_a_named_one(rewritten):
    path = rewritten(speaker=np.array([f"s{number // 4}" for number in range(14)]))
    # By hand: the file's own groups are seven videos of two utterances; speakers have four.
    assert table_dataset(path, modalities=NAMES).table.groups == tuple(f"v{number // 2}" for number in range(14))
    by_speaker = table_dataset(path, modalities=NAMES, group="speaker")
    assert by_speaker.table.groups == tuple(f"s{number // 4}" for number in range(14))


def test_groups_come_from_a_pattern_of_ids_or_from_a_file_of_ids(rewritten):
    path = rewritten(group=None)
    assert table_dataset(path).table.groups is None
    videos = tuple(f"v{number // 2}" for number in range(14))
    assert table_dataset(path, group="(.+)/").table.groups == videos
    ids = table_dataset(path).ids("all")
    speakers = {sample: f"s{number // 4}" for number, sample in enumerate(ids)}
    (path.parent / "speakers.json").write_text(json.dumps(speakers))
    lines = [f"{sample},{speaker}" for sample, speaker in speakers.items()]
    (path.parent / "speakers.csv").write_text("\n".join(["id,group", *lines]))
    # A file may lie beside the table.
    for name in ("speakers.json", "speakers.csv"):
        assert table_dataset(path, group=name).table.groups == tuple(speakers.values())


def test_a_pattern_replaces_the_groups_of_the_file_also_in_folds_and_notes(rewritten):
    lines: list[str] = []
    create_dataset(DataSettings("mosi", str(rewritten()), group="/(.)"), TaskSettings(), lines.append)
    # By hand: utterances 0 and 1 of every video are the two groups. The file's own groups tear only v5 apart.
    assert "note: 2 groups have samples in two splits: 0, 1." in lines
    assert not [line for line in lines if line.endswith(": v5.")]


def test_a_run_is_resumed_with_the_same_groups_alone(rewritten):
    path = rewritten()
    plain, by_video, by_number = (table_dataset(path, group=group) for group in (None, "(.+)/", "/(.)"))
    prints = [dataset.signature.fingerprints.get("groups") for dataset in (plain, by_video, by_number)]
    assert prints[0] is None
    assert len(set(prints)) == 3


def test_groups_that_the_table_does_not_have_are_refused(rewritten, fault):
    path = rewritten()
    assert "has no array 'speaker'" in fault(table_dataset, path, group="speaker")
    assert fault(table_dataset, path, group="(v0)") == (
        "data.group, '(v0)', gives no group for 12 of 14 ids: v1/0, v1/1, v2/0 and 9 more."
    )
    assert "has 2 groups in parentheses; it needs one" in fault(table_dataset, path, group="(v)(0)")
    assert "gone.csv (data.group) cannot be read" in fault(table_dataset, path, group="gone.csv")


# --------------------------------------------------------------------------------------------------- the splits


def test_a_missing_validation_split_is_drawn_and_reported(tmp_path):
    groups = np.repeat([f"g{number}" for number in range(12)], 5)
    split = np.array(["train"] * 50 + ["test"] * 10)
    path = vectors(tmp_path, 60, group=groups, split=split)
    lines: list[str] = []
    made = create_dataset(DataSettings("table", str(path)), TaskSettings(), lines.append)
    assert isinstance(made, TableDataset)
    # By hand: five folds of ten groups of five are two groups each.
    assert {name: len(ids) for name, ids in made.splits.items()} == {"train": 40, "val": 10, "test": 10, "all": 60}
    group = dict(zip(made.table.ids, made.table.groups or (), strict=True))
    assert not {group[sample] for sample in made.ids("val")} & {group[sample] for sample in made.ids("train")}
    assert "No split 'val': drawn from 'train' with groups kept together: train 40, test 10, val 10" in lines
    assert made.ids("test") == tuple(str(number) for number in range(50, 60))
    assert table_dataset(path, "table", TaskSettings()).splits == made.splits


def test_folds_are_drawn_on_request_and_stratified_by_class(tmp_path):
    path = vectors(tmp_path)
    parts = [table_dataset(path, "table", TaskSettings(), folds=3, fold=fold).ids("test") for fold in range(3)]
    assert sorted(sample for part in parts for sample in part) == sorted(map(str, range(30)))
    # By hand: ten samples of each class are 3 or 4 in each of three folds.
    for part in parts:
        assert set(Counter(int(sample) % 3 for sample in part).values()) <= {3, 4}


def test_a_file_of_splits_replaces_those_of_the_table_and_may_lie_beside_it(utterances, tmp_path, fault):
    everyone = table_dataset(utterances).ids("all")
    splits = {"train": everyone[4:8], "val": everyone[:3], "test": everyone[8:]}
    (utterances.parent / "mine.json").write_text(json.dumps(splits))
    try:
        assert table_dataset(utterances, splits="mine.json").ids("train") == everyone[4:8]
        assert "to read splits or data.folds to draw them, not both" in fault(
            table_dataset, utterances, splits="mine.json", folds=3
        )
    finally:
        (utterances.parent / "mine.json").unlink()


def test_a_table_without_splits_is_refused_with_the_settings_that_help(tmp_path, fault):
    line = fault(table_dataset, vectors(tmp_path), "table", TaskSettings())
    assert "no split 'train'" in line
    assert "data.folds 5" in line


# -------------------------------------------------------------------------------------------------- the batches


def test_batches_hold_the_samples_that_have_each_modality(utterances):
    dataset = table_dataset(utterances)
    batches = list(dataset.training_batches("train", 4, 0, 0, 4))
    assert len(batches) == 4
    ids = [sample for batch in batches for sample in batch.ids]
    assert Counter(ids) == Counter(dict.fromkeys(dataset.ids("train"), 2))
    present = dict(zip(dataset.ids("train"), dataset.present("train"), strict=True))
    ready = dataset.ready["train"]
    for batch in batches:
        for name in NAMES:
            having = [row for row, sample in enumerate(batch.ids) if name in present[sample]]
            assert (name in batch.inputs) == bool(having)
            assert batch.inputs[name].indices.tolist() == having
        assert batch.target.tolist() == [float(ready.target[ready.ids.index(sample)]) for sample in batch.ids]


def test_a_modality_that_no_sample_of_a_batch_has_has_no_key(utterances):
    dataset = table_dataset(utterances)
    dataset.prepare("train")
    assert list(batch_of(dataset.ready["train"], [0]).inputs) == ["text"]
    assert list(batch_of(dataset.ready["train"], [2, 1]).inputs) == ["audio", "vision"]


def test_a_resumed_run_sees_the_same_batches_and_parts_are_a_batch(utterances):
    dataset = table_dataset(utterances)
    whole = list(dataset.training_batches("train", 4, 5, 0, 6))
    later = list(dataset.training_batches("train", 4, 5, 4, 6))
    assert [batch.ids for batch in later] == [batch.ids for batch in whole[4:]]
    parts = list(dataset.training_batches("train", 4, 5, 0, 6, parts=2))
    assert [sorted(one.ids + other.ids) for one, other in zip(parts[::2], parts[1::2], strict=True)] == [
        sorted(batch.ids) for batch in whole
    ]
    with pytest.raises(InputError, match="A batch of 1 cannot be shared in 2 parts"):
        next(iter(dataset.training_batches("train", 1, 5, 0, 1, parts=2)))


# ----------------------------------------------------------------------------------------------------- poison


# Methods that are trained by gradients; `linear` and `boosting` take vectors alone, and have a test of this in
# tests/methods/test_classical.py.
FOR_TABLES = [
    name
    for name, row in METHODS.items()
    if issubclass(Prediction, row.method.fits) and not issubclass(row.method, ClassicalMethod)
]


def test_methods_for_tables_are_listed():
    assert {"gmd", "sharing", "dropout", "full", "ensemble"} <= set(FOR_TABLES)


@pytest.mark.parametrize("name", FOR_TABLES)
def test_values_of_missing_modalities_change_no_bit_of_predictions_and_gradients(table_arrays, tmp_path, name):
    def gradients(filler: float) -> dict[str, torch.Tensor]:
        np.savez(tmp_path / f"{filler}.npz", **table_arrays(filler))
        dataset = table_dataset(tmp_path / f"{filler}.npz")
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(0)
        other_options = {"gmc": {}, "mult": {"layers": 1}, "ogm_ge": {"width": 8, "score": "laplace"}, "cpm": {}}
        options = other_options.get(name, {"width": 8})
        method, update = create_method(name, dataset.task, options, generator)
        method.begin(dataset.ids("train"))
        results = {}
        for batch in dataset.training_batches("train", 8, 0, 0, 1):
            fill_gradients(method, update, [batch], Step(cases=method.draw(generator)))
        method.eval()
        with torch.no_grad():
            for block in dataset.samples("test"):
                results |= dict(method.predict_scenarios(block.inputs, block.scenarios))
        gradients = {name: parameter.grad for name, parameter in method.named_parameters()}
        return results | {name: gradient for name, gradient in gradients.items() if gradient is not None}

    clean, poisoned = gradients(0.0), gradients(float("nan"))
    assert set(clean) == set(poisoned)
    assert len(clean) > 10
    for name, value in clean.items():
        assert torch.equal(value, poisoned[name])
        assert value.isfinite().all()


# -------------------------------------------------------------------------------------------------- the scores


def test_blocks_hold_every_sample_once_with_the_scenarios_it_is_eligible_for(utterances):
    dataset = table_dataset(utterances)
    blocks = list(dataset.samples("all"))
    assert sorted(sample for block in blocks for sample in block.ids) == sorted(dataset.ids("all"))
    for block in blocks:
        assert set(block.scenarios) == set(all_scenarios(tuple(block.inputs)))
        assert all(len(observed.indices) == len(block.ids) for observed in block.inputs.values())
    asked = list(dataset.samples("all", [("audio", "vision")]))
    # By hand: ten have all three, and nobody has just these two; v6/1 lacks vision.
    assert sum(len(block.ids) for block in asked) == 9
    assert [block.ids for block in dataset.samples("test", ids=["v6/1", "v6/0"])] == [("v6/1",), ("v6/0",)]


def test_blocks_have_a_largest_size(tmp_path):
    count = 2 * BLOCK + 3
    dataset = table_dataset(vectors(tmp_path, count), "table", TaskSettings(), folds=3)
    assert [len(block.ids) for block in dataset.samples("all")] == [BLOCK, BLOCK, 3]


def test_the_loss_of_samples_is_the_loss_of_the_batch(utterances):
    dataset = table_dataset(utterances)
    torch.manual_seed(0)
    method = create_method("sharing", dataset.task, {"width": 8})[0].eval()
    scores = evaluate(method, dataset, "train")
    losses = means(scores, "loss")
    (batch,) = dataset.training_batches("train", 8, 0, 0, 1)
    step = Step(cases=method.draw(torch.Generator()))
    expected = {name: loss.item() for name, loss in method.losses(batch, step).items()}
    assert len(expected) == 7
    assert {"+".join(scenario): row["all"] for scenario, row in losses.items()} == pytest.approx(expected, rel=1e-5)


def test_metrics_over_the_set_are_computed_on_eligible_samples(utterances):
    dataset = table_dataset(utterances)
    torch.manual_seed(0)
    scores = evaluate(create_method("sharing", dataset.task, {"width": 8})[0], dataset, "test")
    errors = {scenario: row["all"] for scenario, row in means(scores, "error").items()}
    over = {score.scenario: score.value for score in scores if (score.sample, score.metric) == ("all", "mae")}
    assert over == pytest.approx(errors)
    assert list(over) == all_scenarios(NAMES)
    counts = Counter(score.scenario for score in scores if score.metric == "error")
    # v6/1 has no vision.
    assert [counts[scenario] for scenario in all_scenarios(NAMES)] == [3, 3, 2, 3, 2, 2, 2]


def test_constants_come_from_training_samples_and_chance_from_the_scored_split(utterances):
    dataset = table_dataset(utterances)
    constants = dataset.constants("test")
    # By hand: training y = -2 .5 3 -.4 1 -1.5 0 2.5 has four above and three below 0, mean 3.1 / 8, median .25.
    assert dataset.signature.constants == pytest.approx({"majority": 1.0, "mean": 0.3875, "median": 0.25}, abs=1e-6)
    # The test y = 1, -1, 2: positive is right for two of three, and .3875 is off by .6125, 1.3875 and 1.6125.
    assert constants["majority of training"]["acc2"] == constants["chance"]["acc2"] == pytest.approx(2 / 3)
    assert constants["mean of training"]["mae"] == pytest.approx((0.6125 + 1.3875 + 1.6125) / 3)
    assert "corr" not in constants["mean of training"]


def test_the_constant_of_classes_is_the_majority_of_training(tmp_path):
    dataset = table_dataset(vectors(tmp_path), "table", TaskSettings(), folds=3)
    assert set(dataset.constants("test")) == {"majority of training", "chance"}
    assert 0.25 < dataset.constants("test")["chance"]["accuracy"] < 0.5


def test_numbers_without_limits_have_no_metrics_of_signs(utterances):
    dataset = table_dataset(utterances, "table", modalities=list(NAMES))
    assert (dataset.kind, table_dataset(utterances).kind) == ("numbers", "intensities")
    assert {name: set(scores) for name, scores in dataset.constants("test").items()} == {
        "mean of training": {"mae"},
        "median of training": {"mae"},
    }


# ------------------------------------------------------------------------------------------------- the signature


def test_a_signature_is_read_back_unchanged(trained_table, utterances):
    made, stored = table_dataset(utterances).signature, read_signature(trained_table / "signature.safetensors")
    for name in ("streams", "classes", "limits", "constants", "fingerprints", "modalities"):
        assert getattr(stored, name) == getattr(made, name)
    for name in NAMES:
        assert_close(stored.statistics[name], made.statistics[name], rtol=0, atol=0)


def test_a_signature_file_with_other_content_is_refused():
    signature = Signature({"text": Stream("sequence", 3)}, ("0", "1"), None, {}, {}, {})
    table = Table(("a",), {"text": Observed(torch.ones(1, 3), torch.tensor([0]))}, torch.tensor([2]))
    with pytest.raises(InputError, match="kind vector and size 3; the run was trained on kind sequence"):
        signature.check(table)
    with pytest.raises(InputError, match="Class 2 is not among the 2"):
        signature.check_target(table)


def test_a_task_on_a_table_needs_its_signature():
    with pytest.raises(InputError, match="is in its file, which `anysubset fit` reads"):
        create_task(DataSettings("mosi"), TaskSettings())


# ----------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize("setting", [{"patch": [16, 16]}, {"threshold": "validated"}, {"threshold": {"WT": 0.4}}])
def test_settings_of_volumes_are_refused_for_a_table(utterances, fault, setting):
    line = fault(table_dataset, utterances, "mosi", TaskSettings(**setting))
    (name,) = setting
    assert f"task.{name} does not apply to dataset 'mosi', which holds a table: it is for volumes." in line


def test_settings_of_the_data_that_do_not_fit_the_kind_are_refused(utterances, phantoms, tmp_path, fault):
    assert "data.workers does not apply to dataset 'mosi'" in fault(table_dataset, utterances, workers=2)
    with pytest.raises(InputError, match=r"data.reading.target does not apply to dataset 'phantom'"):
        create_dataset(DataSettings("phantom", str(phantoms), reading=ReadingSettings(target="y")), TaskSettings())
    with pytest.raises(InputError, match=r"task.error does not apply to dataset .* it is for a table"):
        create_dataset(DataSettings("phantom", str(phantoms)), TaskSettings(error="mse"))
    with pytest.raises(InputError, match="cross entropy"):
        table_dataset(vectors(tmp_path), "table", TaskSettings(error="mse"), folds=3)


@pytest.mark.parametrize(
    ("method", "options"), [("gmd", {"preset": "gmc"}), ("ensemble", {"preset": "gmc"}), ("gmc", {})]
)
def test_sequences_that_an_encoder_cannot_take_are_refused_before_training(rewritten, fault, method, options):
    values = np.ones((14, 51, 3), np.float32)
    dataset = table_dataset(rewritten(text=values, text_lengths=np.full(14, 51)), "mosi")
    line = fault(create_method(method, dataset.task, options)[0].check_inputs, dataset.loaded_inputs)
    assert "Sequences of text have 51 steps, but their encoder takes up to 50: raise method.steps" in line
    create_method(method, dataset.task, {**options, "steps": 51})[0].check_inputs(dataset.loaded_inputs)


def test_targets_beyond_the_limits_are_refused(table_arrays, rewritten, fault):
    y = table_arrays()["y"].copy()
    y[3] = 4
    assert "Targets go from -3 to 4, outside -3 to 3" in fault(table_dataset, rewritten(y=y))


def test_token_ids_need_an_encoder(rewritten, fault):
    tokens = np.ones((14, 4), np.int64)
    task = table_dataset(rewritten(text=tokens)).task
    assert "needs a pretrained encoder: set method.encoders.text" in fault(create_method, "gmd", task, {})


def test_present_in_keeps_the_order_of_the_task(utterances):
    table = table_dataset(utterances).table
    assert present_in(table, ("vision", "audio", "text"))[4] == ("vision", "audio", "text")


# --------------------------------------------------------------------------------------------- classes of another table


def labelled(folder: Path, labels: list, name: str = "labelled.csv", split: list | None = None) -> Path:
    """A sheet with these labels, two numbers for each sample, and a split of its own by default."""
    split = split or ["train", "train", "val", "test"] * (len(labels) // 4)
    rows = [
        f"s{index},{label},{part},{index % 5},{index % 7}"
        for index, (label, part) in enumerate(zip(labels, split, strict=True))
    ]
    (folder / name).write_text("\n".join(["id,y,split,a_0,b_0", *rows]) + "\n")
    return folder / name


def test_classes_of_another_table_are_taken_by_name(tmp_path, fault):
    trained = table_dataset(labelled(tmp_path, ["mild", "none", "severe", "none"] * 3), "table")
    assert trained.task.classes == ("mild", "none", "severe")
    settings = DataSettings("table", str(labelled(tmp_path, ["none", "severe"] * 2, "other.csv")))
    other = create_dataset(settings, TaskSettings(), signature=trained.signature)
    assert other.table.target.tolist() == [1, 2, 1, 2]  # In the order of the training, not of the file.
    labelled(tmp_path, ["none", "moderate"] * 2, "other.csv")
    line = fault(create_dataset, settings, TaskSettings(), signature=trained.signature)
    assert "Class moderate is not among the 3 of the training data: mild, none, severe." in line


def test_another_table_of_whole_numbers_is_read_as_the_run_was_trained(tmp_path):
    trained = table_dataset(labelled(tmp_path, [0.5, 1.25, 2.0, 3.75] * 3), "table")
    settings = DataSettings("table", str(labelled(tmp_path, [10, 20, 30, 41], "other.csv")))
    other = create_dataset(settings, TaskSettings(), signature=trained.signature)
    assert other.table.target.tolist() == [10, 20, 30, 41]
    classes = table_dataset(labelled(tmp_path, [1, 2, 1, 2] * 3), "table")
    settings = DataSettings("table", str(labelled(tmp_path, ["1.0", "2.0", "2.0", "1.0"], "other.csv")))
    assert create_dataset(settings, TaskSettings(), signature=classes.signature).table.target.tolist() == [0, 1, 1, 0]


def test_classes_without_a_training_sample_are_reported(tmp_path):
    lines: list[str] = []
    path = labelled(tmp_path, ["a", "b", "a", "c"] * 3)
    dataset = create_dataset(DataSettings("table", str(path)), TaskSettings(), lines.append)
    assert isinstance(dataset, TableDataset)
    assert dataset.task.classes == ("a", "b", "c")
    assert lines[-1] == "note: no training sample is of class c, so a network cannot learn it"


def test_predictions_name_the_classes(tmp_path, output_of):
    path = labelled(tmp_path, ["positive", "negative"] * 6)
    small = ["--train.steps", "1", "--train.batch", "4", "--method.width", "4", "--train.device", "cpu"]
    (tmp_path / "data.yaml").write_text(f"data: {{name: table, root: {path}}}\n")
    assert cli.main(["fit", str(tmp_path / "data.yaml"), "--run", str(tmp_path / "run"), *small]) == 0
    scored = " ".join(output_of("evaluate", tmp_path / "run").split())
    assert "Classes by their number in scores.csv: 0 negative, 1 positive." in scored
    output_of("predict", tmp_path / "run", path, "--output", tmp_path / "out")
    header, first, *_ = (tmp_path / "out" / "predictions.csv").read_text().splitlines()
    assert header.endswith("probability_negative,probability_positive")
    assert first.split(",")[2] in ("negative", "positive")


# --------------------------------------------------------------------------------------------- columns of another table


def columns_of(names: str, folder: Path, name: str) -> Path:
    """A sheet of eight samples with these columns; the number in a name is in its values."""
    columns = names.split()
    rows = [
        f"s{row},{row % 3 / 2},{part}," + ",".join(f"{column.split('_')[-1]}.{row}" for column in columns)
        for row, part in enumerate(["train"] * 5 + ["val", "test", "test"])
    ]
    (folder / name).write_text("\n".join([f"id,y,split,{','.join(columns)}", *rows]) + "\n")
    return folder / name


def test_columns_of_another_table_are_taken_by_name(tmp_path, fault):
    trained = table_dataset(columns_of("a_0 a_1 a_2 b_0", tmp_path, "train.csv"), "table")
    assert trained.signature.columns == {"a": ("a_0", "a_1", "a_2"), "b": ("b_0",)}

    def other(names: str) -> TableDataset:
        settings = DataSettings("table", str(columns_of(names, tmp_path, "other.csv")))
        made = create_dataset(settings, TaskSettings(), signature=trained.signature, unlabelled=True)
        assert isinstance(made, TableDataset)
        return made

    reordered = other("b_0 a_2 a_0 a_1")
    assert torch.equal(reordered.table.inputs["a"].values, trained.table.inputs["a"].values)
    assert other("a_0 a_1 a_2").table.modalities == ("a",)
    line = fault(other, "a_0 a_2 a_7")
    assert "a lacks the columns 'a_1' and has the columns 'a_7'; the run was trained on a_0, a_1, a_2: give the" in line
    assert "a has the columns 'a_3'; the run was trained on" in fault(other, "a_0 a_1 a_2 a_3")
    assert "a lacks the columns 'a_2'; the run" in fault(other, "a_0 a_1 b_0")


def test_columns_of_a_folder_of_sheets_are_taken_by_name(tmp_path, fault):
    folder = tmp_path / "sheets"
    folder.mkdir()
    (folder / "about.csv").write_text("id,y,split\na,0.5,train\nb,1,train\nc,0.25,val\n")
    (folder / "lab.csv").write_text("id,iron,sodium\na,1,140\nb,2,138\nc,3,141\n")
    trained = table_dataset(folder, "table")
    settings = DataSettings("table", str(folder))
    (folder / "lab.csv").write_text("id,sodium,iron\na,140,1\nb,138,2\nc,141,3\n")
    again = create_dataset(settings, TaskSettings(), signature=trained.signature)
    assert torch.equal(again.table.inputs["lab"].values, trained.table.inputs["lab"].values)
    (folder / "lab.csv").write_text("id,sodium,zinc\na,140,1\nb,138,2\nc,141,3\n")
    line = fault(create_dataset, settings, TaskSettings(), signature=trained.signature)
    assert "lab lacks the columns 'iron' and has the columns 'zinc'" in line


def test_names_of_columns_are_in_the_run_and_in_converted_tables(tmp_path):
    trained = table_dataset(columns_of("a_0 a_2 b_0", tmp_path, "train.csv"), "table")
    tensors, facts = trained.knowledge()
    tensor_file.save(tmp_path / "signature.safetensors", dict(tensors), facts)
    stored = read_signature(tmp_path / "signature.safetensors")
    assert stored.columns == {"a": ("a_0", "a_2"), "b": ("b_0",)}
    for ending in (".npz", ".safetensors"):
        write_table(trained.table, tmp_path / f"copy{ending}")
        assert read_table(tmp_path / f"copy{ending}").columns == stored.columns
    # A run on arrays without names takes columns by position, as does a table without names.
    np.savez(tmp_path / "plain.npz", y=np.arange(8) / 2, a=np.ones((8, 2)), b=np.ones((8, 1)))
    other = DataSettings("table", str(tmp_path / "plain.npz"))
    assert create_dataset(other, TaskSettings(), signature=trained.signature).table.columns == {}

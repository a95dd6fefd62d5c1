"""`predict` on a table: every sample is predicted from its modalities, with the validation scores of its scenario."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from anysubset.batches import Observed
from anysubset.cli import main
from anysubset.system import tensor_file
from anysubset.workflows.trained import open_run


def table_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def read_facts(folder: Path) -> dict:
    return json.loads((folder / "predictions.json").read_text())


def predict(run: Path, table: Path, folder: Path) -> list[dict[str, str]]:
    assert main(["predict", str(run), str(table), "--output", str(folder)]) == 0
    return table_of(folder)


def test_every_sample_is_predicted_from_its_own_modalities(trained_table, utterances, tmp_path, capsys):
    rows = predict(trained_table, utterances, tmp_path)
    assert [row["id"] for row in rows] == [f"v{number // 2}/{number % 2}" for number in range(14)]
    # By hand: see `make_arrays`.
    used = ["text", "audio", "vision", "text+audio", *["text+audio+vision"] * 9, "text+audio"]
    assert [row["used"] for row in rows] == used
    facts = read_facts(tmp_path)
    assert {name: used["samples"] for name, used in facts["used"].items()} == {
        "text": 1,
        "audio": 1,
        "vision": 1,
        "text+audio": 2,
        "text+audio+vision": 9,
    }
    _, checkpoint = tensor_file.load(trained_table / "checkpoints/best.safetensors")
    scores = facts["used"]["audio"]["validation"]
    assert scores["loss"] == checkpoint["validation"]["audio"]["all"] > 0
    # With 3 validation samples, audio has the spread of all scenarios together.
    assert facts["used"]["audio"]["spread"] == checkpoint["spreads"]["overall"] > 0
    # Of the distances of 3 targets, the second one, ceil(4 * 0.4), is that of an interval of coverage 0.4.
    assert main(["predict", str(trained_table), str(utterances), "--output", str(tmp_path), "--coverage", "0.4"]) == 0
    own = checkpoint["conformal"]["audio"]
    assert own["samples"] == len(own["scores"]) == 3
    with_intervals = table_of(tmp_path)[1]
    assert with_intervals["used"] == "audio"
    interval = [float(with_intervals[name]) for name in ("lower", "prediction", "upper")]
    assert np.diff(interval) == pytest.approx([own["scores"][1]] * 2, rel=1e-5)
    assert scores["mae"] == pytest.approx(scores["loss"])  # The loss of this task is L1.
    assert (facts["samples"], facts["validation_samples"], facts["classes"]) == (14, 3, [])
    assert "2 from text, audio" in capsys.readouterr().out


def test_a_prediction_is_the_output_of_the_network_on_standardised_values(trained_table, utterances, tmp_path):
    predictions = {row["id"]: float(row["prediction"]) for row in predict(trained_table, utterances, tmp_path)}
    opened = open_run(trained_table, device="cpu")
    assert opened.signature is not None
    arrays = np.load(utterances)
    # v5/0 by itself, standardised by hand.
    inputs = {}
    for name in ("text", "audio", "vision"):
        mean, deviation = opened.signature.statistics[name]
        lengths = f"{name}_lengths"
        time = arrays[name].shape[1]
        valid = np.arange(time) < arrays[lengths][10] if lengths in arrays else arrays["audio_valid"][10]
        values = ((torch.from_numpy(arrays[name][10]).double() - mean) / deviation).float()
        inputs[name] = Observed(values[None], torch.tensor([0]), torch.from_numpy(valid)[None])
    opened.method.eval()
    with torch.no_grad():
        output = opened.method.predict(inputs)
    assert predictions["v5/0"] == pytest.approx(output.item(), abs=1e-5)


def test_a_file_may_lack_modalities_and_targets(trained_table, rewritten: Callable[..., Path], tmp_path):
    path = rewritten(y=None, split=None, group=None, vision=None, vision_lengths=None, vision_present=None)
    with np.load(path) as stored:
        remaining = {name: stored[name][3:] for name in stored.files}
    np.savez(path, **remaining, extra=np.zeros(11))  # Other arrays are ignored.
    rows = predict(trained_table, path, tmp_path / "answers")
    assert [row["used"] for row in rows] == ["text+audio"] * 11


def test_a_table_of_vectors_is_refused_by_a_run_on_sequences(trained_table, utterances, tmp_path):
    # A .csv table holds vectors, and the run was trained on sequences.
    (tmp_path / "sheet.csv").write_text("id,text_0,text_1,text_2\na,1,2,3\n")
    assert main(["predict", str(trained_table), str(tmp_path / "sheet.csv"), "--output", str(tmp_path / "o")]) == 2
    assert not (tmp_path / "o").exists()


def test_predictions_of_classes_hold_their_probabilities(tmp_path):
    generator = np.random.default_rng(0)
    y = np.arange(30) % 3
    split = np.array(["train"] * 18 + ["val"] * 6 + ["test"] * 6)
    one = generator.normal(size=(30, 4)) + y[:, None]
    np.savez(tmp_path / "table.npz", y=y, split=split, one=one, two=generator.normal(size=(30, 2)))
    (tmp_path / "tiny.yaml").write_text(
        f"data: {{name: table, root: {tmp_path / 'table.npz'}}}\nmethod: {{width: 8}}\n"
        "train: {steps: 3, batch: 6, device: cpu}\n"
    )
    assert main(["fit", str(tmp_path / "tiny.yaml"), "--run", str(tmp_path / "run")]) == 0
    # Without targets, in a sheet: blank cells are a modality that is missing.
    lines = ["id,one_0,one_1,one_2,one_3,two_0,two_1", "a,0,0,0,0,1,1", "b,2,2,2,2,,", "c,,,,,0.5,0.5"]
    (tmp_path / "sheet.csv").write_text("\n".join(lines) + "\n")
    rows = predict(tmp_path / "run", tmp_path / "sheet.csv", tmp_path / "answers")
    assert list(rows[0]) == ["id", "used", "prediction", "probability_0", "probability_1", "probability_2"]
    assert [(row["id"], row["used"]) for row in rows] == [("a", "one+two"), ("b", "one"), ("c", "two")]
    for row in rows:
        chances = [float(row[f"probability_{name}"]) for name in "012"]
        assert sum(chances) == pytest.approx(1)
        assert row["prediction"] == str(int(np.argmax(chances)))
    assert set(read_facts(tmp_path / "answers")["used"]["one"]["validation"]) == {
        "loss",
        "accuracy",
        "macro_f1",
        "weighted_f1",
        "ece",
    }

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anysubset.batches import Batch
from anysubset.datasets.amputation import presence
from anysubset.errors import InputError
from anysubset.methods.creation import create_method
from anysubset.methods.method import Step
from anysubset.methods.update import fill_gradients
from anysubset.tables.arrays import write_table
from anysubset.tables.formats import read_table
from anysubset.tables.standardisation import standardised, statistics
from anysubset.tables.table import Table, differences, torn_groups
from anysubset.tables.trimodal import CORRELATION, INFORMED, MODALITIES, PER_VIDEO, SIZES, trimodal
from anysubset.tasks.prediction import Prediction, Stream

SMALL = {"text": 12, "audio": 5, "vision": 8}


@pytest.fixture(scope="module")
def many() -> Table:
    """Enough to see shares and correlations."""
    return trimodal({"train": 1600, "val": 16, "test": 800}, SMALL, steps=8, missing_rate=0.3)


def probe(table: Table, name: str) -> tuple[Tensor, Tensor]:
    """Test targets, and what ridge regression on one modality's mean over real steps says of them."""
    parts = []
    for split in (table.split("train"), table.split("test")):
        observed = split.inputs[name]
        assert observed.valid is not None
        mean = observed.values.sum(dim=1) / observed.valid.sum(dim=1, keepdim=True)
        parts.append((mean.double(), split.target[observed.indices].double()))
    (x, y), (x_test, y_test) = parts
    x, x_test = (torch.cat([values, torch.ones(len(values), 1)], dim=1) for values in (x, x_test))
    weights = torch.linalg.solve(x.T @ x + 100 * torch.eye(x.shape[1]), x.T @ y)
    return y_test, x_test @ weights


def test_text_is_most_informative_then_audio_then_vision(many):
    correlations = {}
    for name in MODALITIES:
        target, prediction = probe(many, name)
        correlations[name] = float(np.corrcoef(target, prediction)[0, 1])
    assert correlations == pytest.approx(CORRELATION, abs=0.12)
    assert correlations["text"] > correlations["audio"] + 0.2
    assert correlations["audio"] > correlations["vision"] + 0.1
    assert correlations["vision"] > 0.1


def test_text_is_most_informative_at_the_default_sizes():
    table = trimodal()
    assert {name: observed.values.shape[2] for name, observed in table.inputs.items()} == SIZES
    correlations = {name: float(np.corrcoef(*probe(table, name))[0, 1]) for name in MODALITIES}
    assert correlations["text"] > max(correlations["audio"], correlations["vision"]) + 0.1


def test_the_target_is_a_sentiment_and_one_in_ten_is_neutral(many):
    assert many.regression
    assert many.target.abs().max() == 3
    assert (many.target == 0).float().mean() == pytest.approx(0.1, abs=0.02)
    # No side is favoured.
    assert (many.target > 0).float().mean() == pytest.approx(0.45, abs=0.03)


def test_modalities_have_lengths_of_their_own(many):
    lengths = {name: observed.valid.sum(dim=1) for name, observed in many.inputs.items()}
    for counts in lengths.values():
        assert (int(counts.min()), int(counts.max())) == (3, 8)
    test = {name: counts[many.inputs[name].indices >= 1616] for name, counts in lengths.items()}
    assert not torch.equal(test["text"], test["audio"])


def test_missingness_has_the_requested_rate_and_depends_on_the_sentiment(many):
    train = presence(many.split("train"))
    for name in MODALITIES:
        missing = 1 - sum(name in names for names in train.values()) / len(train)
        assert missing == pytest.approx(0.3, abs=0.03)
    target = dict(zip(many.ids, many.target.tolist(), strict=True))
    for name, lean in INFORMED.items():
        for sign in (-1, 1):
            rows = [sample for sample in train if target[sample] * sign > 0]
            missing = sum(name not in train[sample] for sample in rows) / len(rows)
            # By hand: .3 (1 + lean) where positive, .3 (1 - lean) where negative.
            assert missing == pytest.approx(0.3 * (1 + lean * sign), abs=0.05)
    assert set(presence(many.split("val")).values()) == set(presence(many.split("test")).values()) == {MODALITIES}


def test_videos_stay_whole(many):
    assert torn_groups(many) == []
    assert many.groups is not None
    assert [many.groups.count(name) for name in dict.fromkeys(many.groups)][:3] == [PER_VIDEO] * 3
    assert many.ids[9] == "train_001/1"
    assert many.groups[9] == "train_001"
    assert {name: len(ids) for name, ids in (many.splits or {}).items()} == {"train": 1600, "val": 16, "test": 800}


def test_one_seed_gives_one_table():
    made = [trimodal({"train": 12, "test": 4}, SMALL, 5, seed=seed) for seed in (0, 0, 1)]
    assert differences(made[0], made[1]) == []
    assert {"target", "text.values"} <= set(differences(made[0], made[2]))
    # What comes later changes nothing of what came before; complete samples are the same with and without missingness.
    longer = trimodal({"train": 20, "test": 4}, SMALL, 5)
    assert differences(longer.select(made[0].ids), made[0].select(made[0].ids)) == []
    whole = trimodal({"train": 12, "test": 4}, SMALL, 5, missing_rate=0)
    complete = [sample for sample, names in presence(made[0]).items() if names == MODALITIES]
    assert 0 < len(complete) < 16
    assert differences(whole.select(complete), made[0].select(complete)) == []


def test_a_table_is_written_and_read(tmp_path):
    table = trimodal({"train": 12, "val": 2, "test": 4}, SMALL, 5)
    write_table(table, tmp_path / "made.npz")
    assert differences(read_table(tmp_path / "made.npz"), table) == []


@pytest.mark.parametrize("seed", range(4))
def test_gradients_of_audio_and_vision_conflict_from_the_start(seed):
    """With the default network, once its predictions are near the middle of the targets."""
    cosines = {}
    for rate in (0.3, 0.0):
        train = trimodal({"train": 160}, SMALL, steps=6, missing_rate=rate, seed=seed)
        train = standardised(train, statistics(train))
        torch.manual_seed(seed)
        task = Prediction(MODALITIES, streams={name: Stream("sequence", SMALL[name]) for name in MODALITIES})
        generator = torch.Generator().manual_seed(seed)
        method, update = create_method("gmd", task, {"cases": "all", "dropout": 0.0}, generator)
        batch = Batch(train.inputs, train.target, train.ids)
        # Predictions of a new network may be far from all targets; all cases then agree on the direction.
        with torch.no_grad():
            last = [layer for layer in method.network.head.modules() if isinstance(layer, nn.Linear)][-1]
            last.bias -= method.predict(batch.inputs).mean()
        gradients = fill_gradients(method, update, [batch], Step(cases=method.draw(generator)))
        cosines[rate] = gradients.decoupling.cosines["audio", "vision"]
    assert cosines[0.3] < -0.5
    assert cosines[0.0] > cosines[0.3] + 0.3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"counts": {}}, "The counts are"),
        ({"counts": {"train": 0}}, "at least one utterance"),
        ({"sizes": {"text": 3}}, "The sizes are"),
        ({"sizes": {**SMALL, "audio": 0}}, "at least one"),
        ({"steps": 2}, "Give 3 or more"),
        ({"missing_rate": 0.6}, "Give 0 to 0.5"),
        ({"missing_rate": float("nan")}, "Give 0 to 0.5"),
        ({"missing_splits": ["training"]}, "Unknown split 'training'. Did you mean 'train'"),
        ({"seed": -1}, "The seed must be 0 or more and below .*, not -1"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        trimodal(**arguments)

import pytest

from anysubset.datasets.dataset import Dataset
from anysubset.datasets.missingness import read_missingness
from anysubset.errors import InputError
from anysubset.evaluation.random_missingness import draw_masks, under_mask, under_masks, write_masks
from anysubset.scoring.scores import ALL, Score, means

NAMES = ("text", "audio", "vision")
TEXT, AUDIO, PAIR = ("text",), ("audio",), ("text", "audio")


class Four(Dataset):
    """Four thousand samples with every modality, of whom nothing is known but that; the set has a `mean`."""

    def __init__(self) -> None:
        self.splits = {"test": tuple(map(str, range(4000)))}
        self.root = "nowhere"

    def present(self, split):
        return [NAMES for _ in self.ids(split)]

    def over_set(self, scores):
        values = {score.sample: score.value for score in scores if score.region == "WT"}
        return [Score(scores[0].scenario, ALL, "mean", ALL, sum(values.values()) / len(values))]

    check_modalities = prepare = training_batches = samples = None


FOUR = Four()

# Two samples in three scenarios, two regions, and a metric over the set.
SCORES = [
    Score(TEXT, "a", "dice", "WT", 0.1),
    Score(TEXT, "a", "dice", "ET", 0.2),
    Score(TEXT, "b", "dice", "WT", 0.3),
    Score(TEXT, "b", "dice", "ET", 0.4),
    Score(AUDIO, "b", "dice", "WT", 0.5),
    Score(AUDIO, "b", "dice", "ET", 0.6),
    Score(PAIR, "b", "dice", "WT", 0.7),
    Score(PAIR, "b", "dice", "ET", 0.8),
    Score(PAIR, ALL, "mae", ALL, 0.9),
]


def test_each_sample_is_scored_on_what_the_mask_leaves_of_it():
    found = under_mask(SCORES, {"a": TEXT, "b": AUDIO}, "random:0.5")
    assert found == [
        Score(("random:0.5",), "a", "dice", "WT", 0.1),
        Score(("random:0.5",), "a", "dice", "ET", 0.2),
        Score(("random:0.5",), "b", "dice", "WT", 0.5),
        Score(("random:0.5",), "b", "dice", "ET", 0.6),
    ]
    # By hand: WT (.1 + .5) / 2, ET (.2 + .6) / 2.
    assert means(found, "dice") == {("random:0.5",): {"WT": pytest.approx(0.3), "ET": pytest.approx(0.4)}}
    # Of the whole of `b` instead: (.1 + .7) / 2 and (.2 + .8) / 2. The score over the set is not a sample's.
    found = under_mask(SCORES, {"a": TEXT, "b": PAIR}, "random:0.1")
    assert means(found, "dice") == {("random:0.1",): {"WT": pytest.approx(0.4), "ET": pytest.approx(0.5)}}
    assert {score.metric for score in found} == {"dice"}


def test_a_sample_without_a_score_in_its_scenario_is_not_passed_over():
    with pytest.raises(InputError, match=r"Sample 'a' has no score in audio, which random:0\.5 leaves it"):
        under_mask(SCORES, {"a": AUDIO, "b": TEXT}, "random:0.5")


def test_masks_are_called_by_their_true_rate():
    masks = draw_masks(FOUR, "test", [0.1, 0.3, 0.5, 0.7])
    assert list(masks) == ["random:0.1", "random:0.3", "random:0.5", "random:0.667"]
    for name, left in masks.items():
        rate = 1 - sum(map(len, left.values())) / (3 * len(left))
        assert rate == pytest.approx(float(name.removeprefix("random:")), abs=0.015)
    assert {len(names) for names in masks["random:0.667"].values()} == {1}
    with pytest.raises(InputError, match=r"hold the rate of random:0\.667 twice"):
        draw_masks(FOUR, "test", [0.7, 0.9])
    with pytest.raises(InputError, match="between 0 and 1"):
        draw_masks(FOUR, "test", [1.5])
    with pytest.raises(InputError, match="The seed must be 0 or more, not -1"):
        draw_masks(FOUR, "test", [0.5], seed=-1)


def test_a_mask_depends_on_the_seed_and_the_rate_alone():
    masks = draw_masks(FOUR, "test", [0.3, 0.5])
    assert draw_masks(FOUR, "test", [0.5])["random:0.5"] == masks["random:0.5"]
    assert draw_masks(FOUR, "test", [0.5], seed=1)["random:0.5"] != masks["random:0.5"]
    assert all(set(masks["random:0.5"][sample]) <= set(left) for sample, left in masks["random:0.3"].items())


def test_metrics_over_the_set_are_those_of_the_mask():
    masks = {"random:0.5": {"a": TEXT, "b": AUDIO}, "random:0.1": {"a": TEXT, "b": PAIR}}
    found = [score for score in under_masks(SCORES, masks, FOUR) if score.sample == ALL]
    assert [(score.scenario, score.metric) for score in found] == [(("random:0.5",), "mean"), (("random:0.1",), "mean")]
    # By hand: (.1 + .5) / 2 and (.1 + .7) / 2.
    assert [score.value for score in found] == pytest.approx([0.3, 0.4])
    assert under_masks(SCORES, {}, FOUR) == []


def test_masks_are_kept_by_id(tmp_path):
    masks = draw_masks(FOUR, "test", [0.5, 0.7])
    write_masks(tmp_path / "missingness", masks, FOUR, "test", 0)
    names = [f"test-{FOUR.split_hash('test')}-{rate}.json" for rate in ("0.5", "0.667")]
    assert sorted(path.name for path in (tmp_path / "missingness").iterdir()) == names
    for name, mask in zip(names, masks.values(), strict=True):
        assert read_missingness(tmp_path / "missingness" / name) == mask
    write_masks(tmp_path / "none", {}, FOUR, "test", 0)
    assert not (tmp_path / "none").exists()

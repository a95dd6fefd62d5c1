import pytest

from anysubset.datasets.dataset import Dataset
from anysubset.datasets.missingness import read_missingness
from anysubset.errors import InputError
from anysubset.evaluation.random_missingness import draw_missingness, scores_of_draw, scores_of_draws, write_draws
from anysubset.scoring.scores import ALL, Score, means

NAMES = ("text", "audio", "vision")
TEXT, AUDIO, PAIR = ("text",), ("audio",), ("text", "audio")


class Four(Dataset):
    """Four thousand samples with every modality; the only metric over the set is `mean`."""

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


def test_each_sample_is_scored_in_the_scenario_of_its_draw():
    selected = scores_of_draw(SCORES, {"a": TEXT, "b": AUDIO}, "random:0.5")
    assert selected == [
        Score(("random:0.5",), "a", "dice", "WT", 0.1),
        Score(("random:0.5",), "a", "dice", "ET", 0.2),
        Score(("random:0.5",), "b", "dice", "WT", 0.5),
        Score(("random:0.5",), "b", "dice", "ET", 0.6),
    ]
    # By hand: WT (.1 + .5) / 2, ET (.2 + .6) / 2.
    assert means(selected, "dice") == {("random:0.5",): {"WT": pytest.approx(0.3), "ET": pytest.approx(0.4)}}
    # With both modalities of b: (.1 + .7) / 2 and (.2 + .8) / 2. The score over the set belongs to no sample.
    selected = scores_of_draw(SCORES, {"a": TEXT, "b": PAIR}, "random:0.1")
    assert means(selected, "dice") == {("random:0.1",): {"WT": pytest.approx(0.4), "ET": pytest.approx(0.5)}}
    assert {score.metric for score in selected} == {"dice"}


def test_a_sample_without_a_score_in_its_scenario_is_refused():
    with pytest.raises(InputError, match=r"Sample 'a' has no score in audio, its modalities in random:0\.5"):
        scores_of_draw(SCORES, {"a": AUDIO, "b": TEXT}, "random:0.5")


def test_draws_are_named_by_the_rate_that_was_reached():
    draws = draw_missingness(FOUR, "test", [0.1, 0.3, 0.5, 0.7])
    assert list(draws) == ["random:0.1", "random:0.3", "random:0.5", "random:0.667"]
    for name, present in draws.items():
        rate = 1 - sum(map(len, present.values())) / (3 * len(present))
        assert rate == pytest.approx(float(name.removeprefix("random:")), abs=0.015)
    assert {len(names) for names in draws["random:0.667"].values()} == {1}
    with pytest.raises(InputError, match=r"give random:0\.667 twice"):
        draw_missingness(FOUR, "test", [0.7, 0.9])
    with pytest.raises(InputError, match="between 0 and 1"):
        draw_missingness(FOUR, "test", [1.5])
    with pytest.raises(InputError, match=r"The seed must be 0 or more and below 2\^63, not -1"):
        draw_missingness(FOUR, "test", [0.5], seed=-1)


def test_a_draw_depends_only_on_seed_and_rate():
    draws = draw_missingness(FOUR, "test", [0.3, 0.5])
    assert draw_missingness(FOUR, "test", [0.5])["random:0.5"] == draws["random:0.5"]
    assert draw_missingness(FOUR, "test", [0.5], seed=1)["random:0.5"] != draws["random:0.5"]
    assert all(set(draws["random:0.5"][sample]) <= set(present) for sample, present in draws["random:0.3"].items())


def test_metrics_over_the_set_are_computed_for_each_draw():
    draws = {"random:0.5": {"a": TEXT, "b": AUDIO}, "random:0.1": {"a": TEXT, "b": PAIR}}
    over_set = [score for score in scores_of_draws(SCORES, draws, FOUR) if score.sample == ALL]
    assert [score.scenario for score in over_set] == [("random:0.5",), ("random:0.1",)]
    assert {score.metric for score in over_set} == {"mean"}
    # By hand: (.1 + .5) / 2 and (.1 + .7) / 2.
    assert [score.value for score in over_set] == pytest.approx([0.3, 0.4])
    assert scores_of_draws(SCORES, {}, FOUR) == []


def test_draws_are_written_as_missingness_files(tmp_path):
    draws = draw_missingness(FOUR, "test", [0.5, 0.7])
    write_draws(tmp_path / "missingness", draws, FOUR, "test", 0)
    names = [f"test-{FOUR.split_hash('test')}-{rate}.json" for rate in ("0.5", "0.667")]
    assert sorted(path.name for path in (tmp_path / "missingness").iterdir()) == names
    for name, present in zip(names, draws.values(), strict=True):
        assert read_missingness(tmp_path / "missingness" / name) == present
    write_draws(tmp_path / "none", {}, FOUR, "test", 0)
    assert not (tmp_path / "none").exists()

from anysubset.report.region_table import region_grid
from anysubset.scoring.scores import Score

T, FT = ("t1",), ("flair", "t1")


def test_means_by_region_by_hand():
    values = {
        # scenario, patient, region: dice, hd95, volume_difference in ml.
        (T, "p", "WT"): (0.5, 4.0, -3.0),
        (T, "q", "WT"): (0.7, 2.0, 1.0),
        (FT, "p", "WT"): (0.9, 1.0, 0.5),
        (T, "p", "ET"): (0.0, 20.0, 2.0),
        (T, "q", "ET"): (0.4, 6.0, -1.0),
        (FT, "p", "ET"): (1.0, 0.0, 0.0),
    }
    scores = []
    for (scenario, sample, region), (dice, hd95, difference) in values.items():
        metrics = {"dice": dice, "hd95": hd95, "volume_difference": difference, "volume_error": abs(difference)}
        if (sample, region) != ("p", "ET"):  # p has no ET in the reference.
            metrics["dice_nonempty"] = dice
        scores += [Score(scenario, sample, metric, region, value) for metric, value in metrics.items()]
    grid = region_grid(scores, "A title")
    assert [head.replace("\n", " ") for head in grid.head] == [
        *("region", "Dice %", "Dice %, non-empty", "HD95 mm", "volume error ml", "volume bias ml", "empty references")
    ]
    assert grid.rows == [
        # Dice (.6 + .9) / 2; HD95 (3 + 1) / 2; error (2 + .5) / 2; bias (-1 + .5) / 2.
        ["WT", "75.0", "75.0", "2.0", "1.25", "-0.25", "0"],
        # Dice (.2 + 1) / 2; HD95 (13 + 0) / 2; error (1.5 + 0) / 2; bias (.5 + 0) / 2. No patient of FT has an ET.
        ["ET", "60.0", "", "6.5", "0.75", "+0.25", "1"],
    ]

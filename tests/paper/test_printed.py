from statistics import fmean

import pytest

from anysubset.paper.printed import CAVEATS, TABLE_1, TABLE_2, TABLE_3, TABLE_4, TABLE_5

METHODS_2 = ["Baseline", "U-HeMIS", "HVED", "ACN", "RFNet", "SMU-Net", "OGM-GE", "Ours"]
METHODS_4 = ["CPM", "GMC", "MMIN", "GCNet", "Baseline", "Ours"]


def test_every_cell_of_the_tables_exists():
    assert list(TABLE_2) == [(region, method) for region in ("WT", "TC", "ET") for method in METHODS_2]
    assert {len(numbers) for numbers in TABLE_2.values()} == {16}
    assert list(TABLE_4) == [(name, method) for name in ("MOSI", "MOSEI") for method in METHODS_4]
    assert {len(numbers) for numbers in TABLE_4.values()} == {8}
    assert {len(numbers) for numbers in [*TABLE_1.values(), *TABLE_3.values()]} == {5}
    assert {len(numbers) for numbers in TABLE_5.values()} == {4}
    assert list(CAVEATS) == [1, 2, 3, 4, 5]
    assert all(CAVEATS.values())


@pytest.mark.parametrize(
    ("row", "mean"),
    [
        # The means of the rows, computed independently; the printed means differ.
        (("WT", "Baseline"), 80.44),
        (("WT", "RFNet"), 85.87),
        (("WT", "Ours"), 88.15),
        (("TC", "U-HeMIS"), 60.98),
        (("TC", "ACN"), 77.64),
        (("TC", "Ours"), 80.51),
        (("ET", "SMU-Net"), 61.90),
        (("ET", "OGM-GE"), 38.23),
        (("ET", "Ours"), 69.99),
    ],
)
def test_rows_of_table_2_have_the_computed_means(row, mean):
    assert fmean(TABLE_2[row][:15]) == pytest.approx(mean, abs=0.006)


@pytest.mark.parametrize("row", TABLE_4)
def test_rows_of_table_4_have_the_printed_means(row):
    *cells, mean = TABLE_4[row]
    assert fmean(cells) == pytest.approx(mean, abs=0.07)


def test_table_1_repeats_table_2():
    # Flair, t2 and t1 are columns 0, 1 and 3 of table 2; all but t1ce is column 11.
    names = {"U. base.": "Baseline", "SMU-N.": "SMU-Net"}
    for method, (*alone, together, _) in TABLE_1.items():
        row = TABLE_2["TC", names.get(method, method)]
        assert alone == [row[0], row[1], row[3]]
        assert together in (None, row[11])


def test_table_5_ends_with_the_means_of_table_2():
    for region in ("WT", "TC", "ET"):
        assert TABLE_5[region][3] == pytest.approx(fmean(TABLE_2[region, "Ours"][:15]), abs=0.06)
    for column in range(4):
        mean = fmean(TABLE_5[region][column] or 0 for region in ("WT", "TC", "ET"))
        assert TABLE_5["Average"][column] == pytest.approx(mean, abs=0.08)


def test_table_3_averages_its_columns():
    for *cells, mean in TABLE_3.values():
        assert fmean(cells) == pytest.approx(mean, abs=0.06)

import csv
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from anysubset.datasets.amputation import presence
from anysubset.tables.formats import read_table
from anysubset.tables.in_memory import read_dict
from anysubset.tables.table import Table

SIZES = {"text": 3, "audio": 2}
Missing = dict[str, list[int]]  # Indices of the samples that lack a modality.


def rows(missing: Missing, samples: int) -> dict[str, np.ndarray]:
    """(samples, size) numbers of each modality, with rows of NaN where it is missing."""
    values = {name: np.random.default_rng(size).normal(size=(samples, size)) for name, size in SIZES.items()}
    for name, indices in missing.items():
        values[name][indices] = np.nan
    return values


def steps(missing: Missing, samples: int) -> dict[str, np.ndarray]:
    """(samples, 4, size) sequences of four real steps, of NaN where a modality is missing."""
    return {name: np.stack([values] * 4, axis=1) for name, values in rows(missing, samples).items()}


def npz(folder: Path, missing: Missing, samples: int) -> Path:
    np.savez(folder / "t.npz", **rows(missing, samples), y=np.arange(samples) / 7)
    return folder / "t.npz"


def npz_marked(folder: Path, missing: Missing, samples: int) -> Path:
    arrays = {"y": np.arange(samples) / 7}
    for name, values in rows(missing, samples).items():
        arrays |= {name: np.nan_to_num(values), f"{name}_present": ~np.isnan(values).any(axis=1)}
    np.savez(folder / "t.npz", **arrays)
    return folder / "t.npz"


def npz_sequences(folder: Path, missing: Missing, samples: int) -> Path:
    np.savez(folder / "t.npz", **steps(missing, samples), y=np.arange(samples) / 7)
    return folder / "t.npz"


def safetensors(folder: Path, missing: Missing, samples: int) -> Path:
    tensors = {name: np.ascontiguousarray(values, np.float32) for name, values in rows(missing, samples).items()}
    save_file({**tensors, "y": np.arange(samples, dtype=np.float32) / 7}, folder / "t.safetensors")
    return folder / "t.safetensors"


def sheet(folder: Path, missing: Missing, samples: int, blank: str = "") -> Path:
    columns = {
        f"{name}_{index}": values[:, index]
        for name, values in rows(missing, samples).items()
        for index in range(values.shape[1])
    }
    with (folder / "t.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["y", *columns])
        for sample in range(samples):
            cells = [blank if np.isnan(column[sample]) else repr(float(column[sample])) for column in columns.values()]
            writer.writerow([sample / 7, *cells])
    return folder / "t.csv"


def sheet_of_na(folder: Path, missing: Missing, samples: int) -> Path:
    return sheet(folder, missing, samples, "NA")


def sheets(folder: Path, missing: Missing, samples: int) -> Path:
    """A folder of sheets; that of audio has no rows for the samples that lack it."""
    (folder / "sheets").mkdir()
    for name, values in rows(missing, samples).items():
        lines = [f"{sample},{','.join(map(str, row))}" for sample, row in enumerate(values.tolist())]
        present_lines = [line for line in lines if name == "text" or "nan" not in line]
        header = ",".join(["id", *(f"c{index}" for index in range(values.shape[1]))])
        (folder / "sheets" / f"{name}.csv").write_text("\n".join([header, *present_lines]) + "\n")
    (folder / "sheets" / "about.csv").write_text("id,y\n" + "".join(f"{n},{n / 7}\n" for n in range(samples)))
    return folder / "sheets"


def parquet(folder: Path, missing: Missing, samples: int) -> Path:
    arrow = pytest.importorskip("pyarrow")
    columns = {
        f"{name}_{index}": values[:, index]
        for name, values in rows(missing, samples).items()
        for index in range(values.shape[1])
    }
    stored = arrow.table({"y": np.arange(samples) / 7, **columns})
    pytest.importorskip("pyarrow.parquet").write_table(stored, folder / "t.parquet")
    return folder / "t.parquet"


def parquet_lists(folder: Path, missing: Missing, samples: int) -> Path:
    arrow = pytest.importorskip("pyarrow")
    columns = {name: values.tolist() for name, values in rows(missing, samples).items()}
    stored = arrow.table({"y": np.arange(samples) / 7, **columns})
    pytest.importorskip("pyarrow.parquet").write_table(stored, folder / "t.parquet")
    return folder / "t.parquet"


def pickled(folder: Path, missing: Missing, samples: int, **labels: np.ndarray) -> Path:
    part = {**steps(missing, samples), **labels, "id": [f"v$_${number}" for number in range(samples)]}
    (folder / "t.pkl").write_bytes(pickle.dumps({"train": part}))
    return folder / "t.pkl"


def mmsa(folder: Path, missing: Missing, samples: int) -> Path:
    return pickled(folder, missing, samples, regression_labels=np.arange(samples) / 7)


def mult(folder: Path, missing: Missing, samples: int) -> Path:
    return pickled(folder, missing, samples, labels=np.arange(samples).reshape(-1, 1, 1) / 7)


WRITERS = [
    *(npz, npz_marked, npz_sequences, safetensors),
    *(sheet, sheet_of_na, sheets, parquet, parquet_lists, mmsa, mult),
]


@st.composite
def missingness(draw: st.DrawFn) -> tuple[Missing, int]:
    """Samples that lack text or audio; one at least has both."""
    samples = draw(st.integers(2, 6))
    lacking = draw(st.lists(st.sampled_from(["", "text", "audio"]), min_size=samples - 1, max_size=samples - 1))
    return {name: [index for index, other in enumerate(lacking) if other == name] for name in SIZES}, samples


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=missingness())
def test_the_same_samples_lack_the_same_modalities_in_every_format(
    tmp_path_factory: pytest.TempPathFactory, write: Callable[..., Path], drawn: tuple[Missing, int]
):
    missing, samples = drawn
    path = write(tmp_path_factory.mktemp("t"), missing, samples)
    for clean in (None, "zero"):  # Setting values to 0 never makes a missing modality present.
        table = read_table(path, modalities=list(SIZES), clean=clean)
        assert list(presence(table).values()) == [
            tuple(name for name in SIZES if sample not in missing[name]) for sample in range(samples)
        ]
        check_values(table, missing, samples)


@settings(max_examples=12, deadline=None)
@given(drawn=missingness())
def test_the_same_samples_lack_the_same_modalities_in_memory(drawn: tuple[Missing, int]):
    missing, samples = drawn
    for arrays in (rows(missing, samples), steps(missing, samples)):
        inputs, _ = read_dict(arrays, samples, cells=False)
        for name, observed in inputs.items():
            assert observed.indices.tolist() == [index for index in range(samples) if index not in missing[name]]


def check_values(table: Table, missing: Missing, samples: int) -> None:
    """The values of the samples that have a modality are those that were written, as float32."""
    for name, values in rows(missing, samples).items():
        expected = values[~np.isnan(values).any(axis=1)].astype(np.float32)
        stored = table.inputs[name].values.numpy()
        assert np.array_equal(stored if stored.ndim == 2 else stored[:, 0], expected)

"""Read a table from a file or folder of any supported format, recognised by its content."""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from anysubset.datasets.groups import groups_of, is_column
from anysubset.errors import InputError
from anysubset.tables.arrays import read_npz, read_safetensors
from anysubset.tables.columns import Options
from anysubset.tables.pickles import from_pickle
from anysubset.tables.sdk import read_sdk
from anysubset.tables.sheets import csv_files, read_csv, read_csv_folder, read_parquet
from anysubset.tables.table import Table, shown, torn_groups
from anysubset.tables.unpickling import unpickle
from anysubset.tables.utterances import from_conversations, is_conversations
from anysubset.volumes.dicom import is_dicom
from anysubset.volumes.file_names import OTHER_VOLUMES, ending, first_file
from anysubset.volumes.manifest import is_manifest

FORMATS = ".npz, .safetensors, .csv, .tsv, .parquet, .pkl, a folder of .csv files, or one of .csd files"

SHEETS = (".csv", ".tsv", ".tab", ".txt")  # Text with a cell for each column, whatever separates them.


def read_table(
    path: Path | str,
    *,
    modalities: Mapping[str, str] | Sequence[str] | None = None,
    target: str | None = None,
    kind: str | None = None,
    column: int | None = None,
    id: str | None = None,
    group: str | None = None,
    split: str | None = None,
    images: Sequence[str] = (),
    padding: str | None = None,
    words: str | None = None,
    clean: str | None = None,
    empty: str | None = None,
    absent: bool = False,
    unlabelled: bool = False,
) -> Table:
    """Read a table from a file or a folder.

    Supported are our own `.npz`, `.safetensors`, `.csv` and Parquet tables (`arrays.py`, `sheets.py`), the pickles of
    MMSA, MulT, MFM, GMC, MultiBench and MAG-BERT (`pickles.py`), GCNet's utterances (`utterances.py`) and folders of
    `.csd` files of the CMU SDK (`sdk.py`). Samples are in the order of the file. Ids of the public layouts become
    `video/segment`, and their videos are the groups. Splits called `valid` or `dev` become `val`.

    Args:
        path: the file or folder.
        modalities: to read, in this order; a mapping also gives their names in the file, such as
            {"text": "text_bert"} for MMSA's token ids, {"audio": "COVAREP.csd"}, or {"text": "features/deberta"} for
            GCNet's folders. Default: all of the file.
        target: name of the target; default `y`, or that of the layout.
        kind: `regression` or `classes`; default: floats are for regression; integers, booleans and names are classes.
        column: index, from 0, of the column to predict if the target has several columns, such as emotions.
        id: name of the ids in the file; default `id`, or that of the layout.
        split: name of the splits in the file; default `split`, or that of the layout. For `.csd`, the path of a file of
            folds by video.
        group: a regular expression with one group in parentheses, which takes the group from an id; a `.csv` or `.json`
            file of groups by id; or the name of the groups in the file, by default `group`. Groups with samples in
            several splits are noted. See `datasets/groups.py`.
        images: modalities (samples, height, width) that are images of one channel, not sequences.
        padding: for a file without lengths, where rows of zeros are padding: in `front` of a sequence, at its `end`, or
            nowhere (`none`). By default the file must leave no doubt.
        words: `.csd` file with words, to which modalities are aligned; default: not aligned.
        clean: `zero` sets NaN, infinite values and values beyond float32 to 0, counted in `Table.origin`; default: they
            are refused. A sample whose values are all NaN lacks the modality in any case.
        empty: `drop` leaves out samples without any modality, noted in `Table.origin`; default: they are refused.
        absent: whether the file may lack some of `modalities`, but not all.
        unlabelled: whether the target is ignored and may be absent, which our own formats allow. It is then 0.

    Raises:
        InputError: in one line that starts with the path, if the file is damaged, of an unsupported layout or holds
            code, if the table is faulty, or if an option is not for its layout.
    """
    path = Path(path)
    names = modalities if isinstance(modalities, Mapping) else {name: name for name in modalities or ()}
    options = Options(
        modalities=None if modalities is None else dict(names),
        target=target,
        kind=kind,
        column=column,
        id=id,
        split=split,
        images=list(images),
        padding=padding,
        words=words,
        clean=clean,
        empty=empty,
        group=group if group is None or is_column(group) else None,
        absent=absent,
        unlabelled=unlabelled,
    )
    try:
        table = dispatched(path, options)
    except InputError as error:
        line = str(error)
        if path.is_file():
            line = line.removeprefix(f"{path.name} ")  # Readers of a folder's files name each; here it is the path.
        raise InputError(line if line.startswith(f"{path} ") else f"{path} {line}") from None
    if group is not None and not is_column(group):
        table = replace(table, groups=tuple(groups_of(table.ids, group).values()))
    return with_torn_groups_noted(table)


def with_torn_groups_noted(table: Table) -> Table:
    """The same table, with a note in its origin on groups that have samples in more than one split."""
    torn = torn_groups(table)
    if not torn or table.origin is None:
        return table
    line = f"{len(torn)} groups have samples in two splits: {shown(torn)}."
    return replace(table, origin=replace(table.origin, notes=(*table.origin.notes, line)))


def holds_table(path: Path) -> bool:
    """True if a path is a table and not volumes: a file that is no manifest of images, or a folder of tables.

    A folder of tables may hold other folders, such as a run, but no images.
    """
    if path.is_dir():
        return any(path.glob("*.csd")) or (bool(csv_files(path)) and first_file(path, is_of_volumes) is None)
    return path.is_file() and ".nii" not in path.name and not is_manifest(path)


def is_of_volumes(path: Path) -> bool:
    """True for files that hold volumes, and for lists of such files."""
    return bool(ending(path) or ending(path, OTHER_VOLUMES)) or is_dicom(path)


def dispatched(path: Path, options: Options) -> Table:
    """Read the table with the reader of its format, which follows from the first bytes of the file or from its suffix.

    Raises:
        InputError: if it cannot be read or its format is not supported. The message is to follow the path.
    """
    if path.is_dir():
        if any(path.glob("*.csd")):
            return read_sdk(path, options)
        if csv_files(path):
            return read_csv_folder(path, options)
        raise InputError("is a folder without .csv or .csd files.")
    if path.exists() and not path.is_file():  # Opening a pipe would wait for ever.
        raise InputError("is a device or a pipe: save its content to a file first.")
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}.") from None
    if path.suffix.lower() in (".xlsx", ".xlsm", ".xls", ".ods"):
        raise InputError("is a workbook of a spreadsheet program: save its sheet as CSV.")
    if start.startswith(b"PK"):
        refuse_torch(path)
        return read_npz(path, options)
    if start.startswith(b"\x89HDF"):
        raise InputError("is one HDF5 file: give the folder that it lies in, with the labels beside it.")
    if start.startswith(b"PAR1"):
        return read_parquet(path, options)
    # A .safetensors file starts with 8 bytes, the length of its header, which is JSON.
    if path.suffix.lower() == ".safetensors" or start[8:] == b"{":
        return read_safetensors(path, options)
    # Pickles of protocol 2 and later start with a marker; earlier ones look like text.
    if start.startswith(b"\x80") or path.suffix.lower() in (".pkl", ".pickle", ".p"):
        content = unpickle(path)
        return (
            from_conversations(path, content, options) if is_conversations(content) else from_pickle(content, options)
        )
    if start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z", b"\x28\xb5\x2f\xfd")):
        raise InputError("is compressed: unpack it first.")
    if path.suffix.lower() in SHEETS:
        return read_csv(path, options)
    raise InputError(f"is of no supported format. Supported: {FORMATS}.")


def refuse_torch(path: Path) -> None:
    """Raise InputError for files of `torch.save`, which hold pickled objects, such as GMC's `.dt` files."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return  # The reader of arrays reports the fault.
    if any(name.endswith("/data.pkl") for name in names):
        raise InputError(
            "was refused: it holds objects saved by torch, as GMC's .dt files do, and reading those runs code of the "
            "program they came from. Give the .pkl they were made from, or save their arrays with numpy.savez."
        )

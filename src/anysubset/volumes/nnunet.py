"""Patients of Medical Decathlon and nnU-Net: images in one folder, channels and labels named in `dataset.json`.

Decathlon has a 4-D file per patient (`imagesTr/BRATS_001.nii.gz`), nnU-Net a file per channel
(`imagesTr/glioma_000_0000.nii.gz`), of which a patient may lack some.
"""

import re
from collections import Counter
from pathlib import Path
from typing import Any

from anysubset.errors import InputError, listed, one_line
from anysubset.system.input_files import read_json
from anysubset.volumes.file_names import IMAGES, image_at, images, stem, subfolders
from anysubset.volumes.patient import Patient, Source, assemble
from anysubset.volumes.regions import DECATHLON, Regions
from anysubset.volumes.spellings import LABEL, modality_name

FOLDS = "splits_final.json"
LABELS_OF = {"imagesTr": "labelsTr", "imagesTs": "labelsTs"}


def nnunet_folder(root: Path) -> tuple[Path, tuple[str, ...]] | None:
    """The folder of a data set with `dataset.json`, and the folders of images to read; None for other layouts.

    `root` is the data set, or its folder imagesTr or imagesTs, of which nothing else is then read.
    """
    if root.name in LABELS_OF and any((root.parent / name).exists() for name in ("dataset.json", LABELS_OF[root.name])):
        return root.parent, (root.name,)
    parts = tuple(name for name in LABELS_OF if (root / name).is_dir())
    return (root, parts) if parts else None


def refuse_files_of_channels(root: Path) -> None:
    """Raise InputError for a folder with the files of nnU-Net, a file per channel, that nothing describes."""
    stems = [stem(path) for path in images(root)]
    channels = [name for name in stems if re.search(r"._00\d\d$", name)]
    cases = {name[: -len("_0000")] for name in channels}
    # Beside the channels may lie the labels, which are called like the case.
    if len(cases) > 1 and cases.issuperset(set(stems) - set(channels)):
        raise InputError(
            f"{root} holds a file per channel, such as {channels[0]}, as nnU-Net has them in imagesTr, but no "
            'dataset.json beside imagesTr names the channels, as "channel_names": {"0": "FLAIR", ...}. Write it, or a '
            "CSV manifest."
        )


def refuse_folder_of_data_sets(root: Path) -> None:
    """Raise InputError for a folder of data sets of nnU-Net, such as nnUNet_raw, instead of one."""
    inside = [folder for folder in subfolders(root) if (folder / "imagesTr").is_dir()]
    if inside:
        raise InputError(f"{root} holds data sets of nnU-Net or Medical Decathlon: give one, such as {inside[0]}.")


def from_nnunet(root: Path, parts: tuple[str, ...]) -> tuple[str, list[Patient], list[str]]:
    """Name of the layout, patients, and lines on files that are passed over.

    Args:
        root: folder with dataset.json.
        parts: folders of images in it.

    Raises:
        InputError: if dataset.json is faulty or does not name the channels, or files are of a kind that is not read.
    """
    described = description(root)
    channels = channel_names(root, described)
    ending = described.get("file_ending")
    if isinstance(ending, str) and ending.lower() not in IMAGES:
        file = root / "dataset.json"
        raise InputError(f"{file} has the file ending {ending!r}, which is not read: convert the images to .nii.gz.")
    files = {part: images(root / part) for part in parts}
    raw = any(channel_of(path, channels) is not None for paths in files.values() for path in paths)
    patients, lines, other = [], [], list[str]()
    for part, paths in files.items():
        cases: dict[str, list[tuple[str, Source]]] = {}
        for path in paths:
            case, named = channels_in(path, channels) if raw else four_dimensional(path, channels)
            if named:
                cases.setdefault(case, []).extend(named)
            else:
                other.append(path.name)
        labels = {stem(path): path for path in images(root / LABELS_OF[part])}
        for case, named in cases.items():
            label = [(LABEL, Source(image_at(labels.pop(case))))] if case in labels else []
            patients.append(assemble(case, [*named, *label]))
        if labels:
            lines.append(f"{len(labels)} labels in {LABELS_OF[part]} have no image: {listed(labels)}.")
        if part == "imagesTr" and len(cases) != described.get("numTraining", len(cases)):
            lines.append(f"dataset.json counts {described['numTraining']} training cases; imagesTr has {len(cases)}.")
    if (root / FOLDS).is_file():
        lines.append(
            f"{FOLDS} holds the folds of nnU-Net, which are not read: write those of one fold to splits.json, as "
            '{"train": ["id", ...], "val": [...]}.'
        )
    unused = [one.name for one in subfolders(root) if one.name not in (*LABELS_OF, *LABELS_OF.values()) and images(one)]
    if unused and len(parts) == len([name for name in LABELS_OF if (root / name).is_dir()]):
        lines.append(f"Folders that are not read: {listed(unused)}.")
    if other:
        line = f"{len(other)} images are not read, as their names end in no channel of dataset.json"
        lines.append(f"{line}: {listed(other)}.")
    return "nnU-Net raw" if raw else "Medical Decathlon", patients, lines


def description(root: Path) -> dict[str, Any]:
    """Content of dataset.json; empty if it cannot be read, so that the message on channels follows."""
    try:
        described = read_json(root / "dataset.json")
    except InputError:
        return {}
    return described if isinstance(described, dict) else {}


def channel_names(root: Path, described: dict[str, Any]) -> dict[int, str]:
    """Names of the channels by number. Names that several channels share, such as `zscore`, get the number."""
    needed = '"modality": {"0": "FLAIR", ...}, or "channel_names"'
    try:
        names = described.get("modality") or described["channel_names"]
        channels = {int(index): str(name) for index, name in sorted(names.items(), key=lambda item: int(item[0]))}
    except (ValueError, LookupError, AttributeError, TypeError):
        raise InputError(
            f"{root} has imagesTr but no dataset.json with the channels, as {needed}. Write it, or a CSV manifest."
        ) from None
    counts = Counter(modality_name(name) for name in channels.values())
    return {
        number: name if counts[modality_name(name)] == 1 else f"{name}_{number}" for number, name in channels.items()
    }


def channel_of(path: Path, channels: dict[int, str]) -> tuple[str, int] | None:
    """Case and channel of a file of nnU-Net, whose name ends in `_0000`; None for other files.

    In Decathlon's layout a name may end in four digits, too, but then the label has the same name.
    """
    match = re.fullmatch(r"(.+)_(\d{4})", stem(path))
    if match is None or int(match[2]) not in channels:
        return None
    labels = path.parent.parent / LABELS_OF[path.parent.name]
    return None if (labels / path.name).exists() else (match[1], int(match[2]))


def channels_in(path: Path, channels: dict[int, str]) -> tuple[str, list[tuple[str, Source]]]:
    """Case and named source of a file of nnU-Net; no source if its name ends in no channel."""
    parts = channel_of(path, channels)
    return (stem(path), []) if parts is None else (parts[0], [(channels[parts[1]], Source(image_at(path)))])


def four_dimensional(path: Path, channels: dict[int, str]) -> tuple[str, list[tuple[str, Source]]]:
    """Case and named sources of a file of Decathlon, 4-D unless there is only one channel."""
    one = len(channels) == 1
    return stem(path), [(name, Source(path, None if one else number)) for number, name in channels.items()]


def named_regions(root: Path) -> Regions | None:
    """Regions that dataset.json names, outer regions first; None if it names none.

    Both ways are read: {"0": "background", "1": "tumour"}, and {"background": 0, "tumour": [1, 2], "ignore": 3}.
    """
    named = description(root).get("labels")
    if not isinstance(named, dict):
        return None
    try:
        if all(str(key).isdigit() for key in named):
            regions = {str(name): [int(value)] for value, name in named.items()}
        else:
            lists = {name: value if isinstance(value, list) else [value] for name, value in named.items()}
            regions = {name: [int(value) for value in values] for name, values in lists.items()}
    except (ValueError, TypeError) as error:
        file = root / "dataset.json"
        raise InputError(f"{file} has labels that are not whole numbers ({one_line(error)}).") from None
    shown = {re.sub(r"\W+", "_", name.strip()): sorted(values) for name, values in regions.items()}
    shown = {name: values for name, values in shown.items() if 0 not in values and name.lower() != "ignore"}
    of_value = {values[0]: name.lower() for name, values in shown.items() if len(values) == 1}
    if set(of_value) == {1, 2, 3} and "dema" in of_value[1] and "non" in of_value[2] and "enh" in of_value[3]:
        return DECATHLON.regions
    return dict(sorted(shown.items(), key=lambda item: -len(item[1]))) or None

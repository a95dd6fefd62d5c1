"""Compare data with those that a run was trained on, by the fingerprints in its folder."""

from pathlib import Path

from anysubset.datasets.dataset import Dataset
from anysubset.errors import InputError, listed
from anysubset.system.fingerprints import differences, read_fingerprints
from anysubset.system.run_folder import RunFolder
from anysubset.workflows.arguments import FilePath, Report


def changes_of(folder: Path, dataset: Dataset, split: str | None = None) -> list[str] | None:
    """What differs between data and those that a run was trained on, a phrase each; None if the run recorded nothing.

    Values are compared in all splits of a table, and in the split of volumes that is prepared. Of other splits of
    volumes, ids and present modalities are compared.

    Args:
        folder: of the run.
        dataset: the data.
        split: of volumes, the one that is prepared.
    """
    recorded = read_fingerprints(RunFolder(folder).data)
    if recorded is None:
        return None
    names = [name for name in recorded if dataset.splits.get(name)]
    in_memory = bool(dataset.loaded_inputs)
    current = {name: dataset.fingerprints(name, content=in_memory or split in (name, "all")) for name in names}
    return differences(recorded, current)


def check_unchanged(folder: Path, dataset: Dataset) -> None:
    """Raise InputError if data are not those that a run was trained on; see `changes_of` for what is compared."""
    if changes := changes_of(folder, dataset):
        raise InputError(
            f"The data are not those that {folder} was trained on: {listed(changes)}. Restore them, or train a run on "
            "the data as they are now."
        )


def is_own(folder: Path, dataset: Dataset, split: str, root: FilePath | None, report: Report) -> bool:
    """True if the data are those that the run was trained on, also where they were moved.

    Values are compared where they were read: in all splits of a table, and in the scored split of volumes. Of other
    splits of volumes, ids and present modalities are compared.

    Args:
        folder: of the run.
        dataset: of which `split` is prepared.
        split: to be scored.
        root: of data elsewhere; None for the run's own.
        report: gets a line where the data were moved, or the run recorded nothing to compare with.

    Raises:
        InputError: if the run's own data changed since the training.
    """
    changes = changes_of(folder, dataset, split)
    if changes is None:
        if root is None:
            report(f"note: {folder} has no {RunFolder(folder).data.name}, so it is unknown whether the data changed")
        return root is None
    if root is None and changes:
        raise InputError(
            f"The data are not those that {folder} was trained on: {listed(changes)}. Restore them, or score them as "
            f"other data, under their path: --data.root {dataset.root}"
        )
    if root is not None and not changes:
        report(f"{root} holds the data of {folder}: the scores are those of its own data set")
    return not changes

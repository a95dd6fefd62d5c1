"""The folder that predictions are written into: what must not be replaced there, and where it must not lie."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from anysubset.errors import InputError
from anysubset.system.written import check_replaceable


@dataclass(frozen=True)
class Output:
    """Where predictions are written.

    folder: for all files.
    writer: the command, recorded beside the files; it may replace what it wrote itself.
    overwrite: whether it may also replace predictions of another run.
    """

    folder: Path
    writer: str
    overwrite: bool

    def check(self, files: Iterable[Path]) -> None:
        """Raise InputError if the folder is a file, or one of the files to be written must not be replaced."""
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{self.folder} is a file: name a folder for the predictions with --output.")
        for file in files:
            check_replaceable(file, self.writer, self.overwrite)


def check_apart(folder: Path, sources: Iterable[Path], below: bool) -> None:
    """Raise InputError if a folder of predictions is one that data are read from.

    A mask in the folder of a patient would be read as its label, and one beside the patients as another patient.

    Args:
        folder: of the predictions.
        sources: folders or files of data.
        below: whether data are also read from folders in those, as patients are.
    """
    for source in sources:
        inside = folder.resolve().is_relative_to(source.resolve())
        if source.is_dir() and inside and (below or folder.resolve() == source.resolve()):
            raise InputError(
                f"Predictions in {folder} would be read as data, because it is in {source}: choose another --output."
            )

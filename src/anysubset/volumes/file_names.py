"""Names of image files: which endings are images, and the files directly in a folder."""

import itertools
import os
from collections.abc import Callable
from pathlib import Path

from anysubset.errors import InputError, one_line

NIFTI = (".nii", ".nii.gz")
# Further kinds that nibabel reads: FreeSurfer's, pairs of a header and an image (NIfTI-1 or Analyze), and bzip2.
IMAGES = (*NIFTI, ".nii.bz2", ".mgz", ".mgh", ".hdr", ".img", ".hdr.gz", ".img.gz")
# Volumes that are not read: other formats, and compressions that are not read.
OTHER_VOLUMES = (
    *(".nrrd", ".nhdr", ".mha", ".mhd", ".npy", ".dcm", ".ima", ".mnc", ".mif", ".mif.gz", ".v3draw"),
    *(".nii.zst", ".nii.xz", ".nii.zip", ".nii.7z", ".head", ".brik", ".brik.gz", ".par", ".rec"),
)

MOST_FILES = 2000  # Files to look at: a folder of patients with NIfTI files has no more than a few before the first.


def ending(path: Path, endings: tuple[str, ...] = IMAGES) -> str:
    """The longest of the endings that the name of a file has, in any case of letters; empty if it has none.

    >>> ending(Path("p01_T1.NII.GZ")), ending(Path("notes.txt"))
    ('.nii.gz', '')
    """
    name = path.name.lower()
    return max((end for end in endings if name.endswith(end)), key=len, default="")


def stem(path: Path) -> str:
    """Name of a file without the ending of an image, `.nii.gz` for example; the whole name if it has none.

    >>> stem(Path("scans/p01_T1.NII.GZ")), stem(Path("p01_t1.mgz")), stem(Path("notes.txt"))
    ('p01_T1', 'p01_t1', 'notes.txt')
    """
    end = ending(path)
    return path.name[: len(path.name) - len(end)]


def is_nifti(path: Path) -> bool:
    """True if a file is called `.nii` or `.nii.gz`."""
    return bool(ending(path, NIFTI))


def partner(path: Path) -> Path | None:
    """The other file of a pair of header and image, with letters of the same case; None for other kinds.

    >>> partner(Path("p01_t1.hdr")).name, partner(Path("p01_t1.IMG.GZ")).name, partner(Path("p01_t1.nii"))
    ('p01_t1.img', 'p01_t1.HDR.GZ', None)
    """
    kind = ending(path)
    other = {".hdr": ".img", ".img": ".hdr", ".hdr.gz": ".img.gz", ".img.gz": ".hdr.gz"}.get(kind)
    if other is None:
        return None
    upper = path.name[len(path.name) - len(kind) :].isupper()
    return path.with_name(stem(path) + (other.upper() if upper else other))


def visible(folder: Path) -> list[Path]:
    """Files and folders directly in a folder, sorted, without hidden ones such as `._x` of macOS; empty for a file.

    Raises:
        InputError: if the folder may not be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if path.name[0] != ".") if folder.is_dir() else []
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be read ({one_line(error)}).") from None


def subfolders(folder: Path) -> list[Path]:
    """Folders directly in a folder, sorted, without those called like an image."""
    return [path for path in visible(folder) if not ending(path) and path.is_dir()]


def is_broken_link(path: Path) -> bool:
    """True for a link whose target does not exist."""
    return path.is_symlink() and not path.exists()


def images(folder: Path) -> list[Path]:
    """Whatever is directly in a folder and called like an image, sorted; of a pair of header and image, the header.

    Links whose targets do not exist are among them, so that they are reported instead of passed over.
    """
    files = [path for path in visible(folder) if ending(path)]
    headers = {path for path in files if ending(path).startswith(".hdr")}
    return [path for path in files if not (ending(path).startswith(".img") and partner(path) in headers)]


def image_at(path: Path) -> Path:
    """The image at a path: of a folder called like a file (`x_t1.nii.gz/`), the only image inside it, if it has one."""
    inside = images(path) if path.is_dir() else []
    return inside[0] if len(inside) == 1 else path


def first_file(folder: Path, fits: Callable[[Path], object]) -> Path | None:
    """The first file that fits in a folder or in folders below it, among the first `MOST_FILES`; None without one."""
    files = (Path(inner) / name for inner, _, names in os.walk(folder) for name in sorted(names))
    return next((path for path in itertools.islice(files, MOST_FILES) if fits(path)), None)


def other_volumes(folder: Path) -> list[Path]:
    """Volumes directly in a folder that are of a kind that is not read, sorted."""
    return [path for path in visible(folder) if not ending(path) and ending(path, OTHER_VOLUMES) and path.is_file()]

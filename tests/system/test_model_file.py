"""Model files: written with the same bytes, and opened within limits, whoever made them."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from anysubset.errors import InputError
from anysubset.system.model_file import ABOUT, MEMBERS, run_folder_of, write_model_file

Fault = Callable[..., str]
ABOUT_TEXT = '{"version": 1}'


def zip_with(
    path: Path, *members: tuple[str, bytes], method: int = zipfile.ZIP_STORED, about: str = ABOUT_TEXT
) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in ((ABOUT, about.encode()), *members):
            archive.writestr(name, content)
    return path


def opened(path: Path) -> dict[str, bytes]:
    """Files in the folder that a run is opened in, by name."""
    with run_folder_of(path) as folder:
        files = [file for file in folder.rglob("*") if file.is_file()]
        return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def test_members_are_extracted_and_the_temporary_folder_is_removed(tmp_path: Path):
    (tmp_path / "weights").write_bytes(bytes(range(256)))
    path = tmp_path / "model.zip"
    write_model_file(path, {ABOUT: ABOUT_TEXT, "README.md": "é", "checkpoints/best.safetensors": tmp_path / "weights"})
    assert opened(path) == {"checkpoints/best.safetensors": bytes(range(256))}
    with run_folder_of(path) as folder:
        assert folder.is_dir()
    assert not folder.exists()
    with zipfile.ZipFile(path) as archive:
        assert archive.read("README.md").decode() == "é"


def test_the_same_members_give_the_same_bytes_whatever_the_time_and_mode_of_a_file(tmp_path: Path):
    source = tmp_path / "weights"
    source.write_bytes(b"12")
    write_model_file(tmp_path / "a.zip", {"x": source})
    os.utime(source, (10**9, 10**9))
    source.chmod(0o600)
    write_model_file(tmp_path / "b.zip", {"x": source})
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_a_folder_stands_for_itself(tmp_path: Path):
    with run_folder_of(tmp_path) as folder:
        assert folder == tmp_path


def test_a_repacked_file_and_one_of_a_later_version_with_more_members_are_opened(tmp_path: Path):
    path = zip_with(tmp_path / "m.zip", ("experiment.yaml", b"seed: 0"), ("new/x", b"1"), method=zipfile.ZIP_DEFLATED)
    assert opened(path) == {"experiment.yaml": b"seed: 0"}


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "..\\x", "C:x", "checkpoints/../experiment.yaml"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, fault: Fault, name: str):
    path = zip_with(tmp_path / "m.zip", (name, b"1"))
    assert "a path that leads elsewhere" in fault(opened, path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.zip"]


def test_a_member_that_unfolds_without_measure_is_refused(tmp_path: Path, cheap_fault: Fault):
    # 2 GiB are declared and none is there: the directory at the end of the file counts, before anything is read.
    path = zip_with(tmp_path / "m.zip", ("experiment.yaml", b"1"), method=zipfile.ZIP_DEFLATED)
    content = path.read_bytes()
    entry = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 1)
    path.write_bytes(content[: entry + 24] + (2**31).to_bytes(4, "little") + content[entry + 28 :])
    assert "unfolds to 2.15 GB" in cheap_fault(opened, path)


def test_more_content_than_is_declared_is_refused(tmp_path: Path, fault: Fault):
    path = zip_with(tmp_path / "m.zip", ("experiment.yaml", bytes(1000)), method=zipfile.ZIP_DEFLATED)
    content = path.read_bytes()
    entry = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 1)
    path.write_bytes(content[: entry + 24] + (10).to_bytes(4, "little") + content[entry + 28 :])
    assert "it is damaged" in fault(opened, path)


def test_repeated_and_countless_members_and_other_compressions_are_refused(tmp_path: Path, fault: Fault):
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = zip_with(tmp_path / "twice.zip", ("experiment.yaml", b"1"), ("experiment.yaml", b"2"))
    assert "two members that are called 'experiment.yaml'" in fault(opened, twice)
    many = zip_with(tmp_path / "many.zip", *((str(number), b"") for number in range(MEMBERS)))
    assert f"has {MEMBERS + 1} members" in fault(opened, many)
    lzma = zip_with(tmp_path / "lzma.zip", ("experiment.yaml", b"1"), method=zipfile.ZIP_LZMA)
    assert "in another way than deflate" in fault(opened, lzma)


def test_files_of_other_kinds_and_of_a_later_version_are_refused(tmp_path: Path, fault: Fault):
    (tmp_path / "text.zip").write_text("text")
    assert "no file that `anysubset export` wrote" in fault(opened, tmp_path / "text.zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("x", "1")
    assert f"is no model file: it has no {ABOUT}" in fault(opened, tmp_path / "other.zip")
    later = zip_with(tmp_path / "later.zip", about='{"version": 99}')
    assert "was written by a later version of anysubset (its version is 99)" in fault(opened, later)
    damaged = zip_with(tmp_path / "damaged.zip", about="[]")
    assert f"{damaged}/{ABOUT} is damaged" in fault(opened, damaged)


def test_errors_name_the_model_file_and_not_the_temporary_folder(tmp_path: Path):
    path = zip_with(tmp_path / "m.zip", ("experiment.yaml", b"seed: 0"))
    with pytest.raises(InputError) as caught, run_folder_of(path) as folder:
        raise InputError(f"{folder / 'experiment.yaml'} is damaged.")
    assert str(caught.value) == f"{path}/experiment.yaml is damaged."


def test_an_interrupted_write_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "weights").write_bytes(b"1")
    monkeypatch.setattr(zipfile.ZipFile, "open", fail)
    with pytest.raises(OSError, match=r"model\.zip"):
        write_model_file(tmp_path / "model.zip", {"x": tmp_path / "weights"})
    assert [file.name for file in tmp_path.iterdir()] == ["weights"]

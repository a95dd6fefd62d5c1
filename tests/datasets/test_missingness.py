import json
from pathlib import Path

import pytest

from anysubset.datasets.missingness import read_missingness, restricted, write_missingness

STAY = {"b/1": ("text", "vision"), 'quoted "a"': ("audio",)}


def test_a_written_file_is_read_back_unchanged(tmp_path):
    path = tmp_path / "missingness.json"
    write_missingness(path, STAY, {"how": "by hand", "rate": 0.5})
    assert read_missingness(path) == STAY
    assert list(read_missingness(path)) == list(STAY)
    content = json.loads(path.read_text())
    assert content == {
        "how": "by hand",
        "rate": 0.5,
        "present": {sample: list(names) for sample, names in STAY.items()},
    }
    # A sample a line, so that two files can be compared by eye.
    assert '  "b/1": ["text", "vision"],\n' in path.read_text()
    write_missingness(path, {"c": ("text",)}, {})
    assert read_missingness(path) == {"c": ("text",)}


def test_a_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "missingness.json"
    write_missingness(path, STAY, {})

    def full(descriptor: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("anysubset.system.files.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_missingness(path, {"c": ("text",)}, {})
    assert read_missingness(path) == STAY
    assert [file.name for file in tmp_path.iterdir()] == ["missingness.json"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is no missingness file: it is not valid JSON (Expecting value"),
        ("{'present': {}}", "is no missingness file"),
        ("[" * 100000, "is no missingness file"),
        ("3", 'it must be {"present"'),
        ({"a": ["text"]}, 'it must be {"present"'),
        ({"present": {}}, 'it must be {"present"'),
        ({"present": ["a"]}, 'it must be {"present"'),
        ({"present": {"a": "text"}}, "the entry of 'a' is not a list of modalities"),
        ({"present": {"a": [1]}}, "the entry of 'a' is not a list of modalities"),
        ({"present": {"a": ["text"], "b": []}}, "leaves no modality to 'b'"),
        ({"present": {"a": ["text", "text"]}}, "names a modality of 'a' twice"),
        ('{"present": {"a": ["text"], "a": ["audio"]}}', "it names 'a' twice"),
    ],
)
def test_files_of_another_layout_are_refused(tmp_path, content, words, fault):
    path = tmp_path / "missingness.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    line = fault(read_missingness, path)
    assert line.startswith(f"{path}")
    assert words in line


def test_files_that_are_not_text_are_refused(tmp_path, fault):
    assert "gone.json cannot be read as text" in fault(read_missingness, tmp_path / "gone.json")
    assert "cannot be read as text" in fault(read_missingness, tmp_path)
    Path(tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    assert "bytes.json cannot be read as text" in fault(read_missingness, tmp_path / "bytes.json")


def test_samples_keep_present_modalities_that_stay():
    present = {"a": ("text", "audio"), "b": ("vision",), "c": ("text", "vision")}
    assert restricted(present, {}) == present
    # Naming what a sample never had gives it nothing.
    assert restricted(present, {"a": ("vision", "audio"), "b": ("text", "vision")}) == present | {"a": ("audio",)}


def test_missingness_of_other_data_is_refused(fault):
    present = {"a": ("text", "audio"), "b": ("vision",)}
    assert "Unknown sample 'd'" in fault(restricted, present, {"d": ("text",)})
    assert "Unknown modality 'sound'" in fault(restricted, present, {"a": ("text", "sound")})
    assert "'b' has vision and would keep text, audio." in fault(restricted, present, {"b": ("text", "audio")})


def test_a_sample_in_another_spelling_is_named(fault):
    assert "Unknown sample '1'. The data have '001'" in fault(restricted, {"001": ("text",)}, {"1": ["text"]})

import gzip
import math
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from anysubset.errors import InputError
from anysubset.system import tensor_file

TENSORS = {
    "float32": torch.tensor([[0.1, -0.0], [math.inf, 1e-45]]),
    "float64": torch.tensor(1 / 3, dtype=torch.float64),
    "bfloat16": torch.tensor([1.5], dtype=torch.bfloat16),
    "int64": torch.tensor([2**62, -1]),
    "uint8": torch.get_rng_state(),
    "bool": torch.tensor([True, False]),
    "empty": torch.empty(0, 3),
    "a name. with/all sorts+of things": torch.ones(1),
}
FACTS = {"step": 3, "best": -math.inf, "nested": {"t1+flair": {"WT": 0.1 + 0.2}}, "text": 'ünï "q"\n', "none": None}


class Touch:
    """An object whose pickle makes a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def fault(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        tensor_file.load(path)
    line = str(caught.value)
    assert "\n" not in line
    assert str(path) in line
    return line


def test_tensors_and_facts_are_read_back_bit_for_bit(tmp_path):
    tensor_file.save(tmp_path / "c.safetensors", TENSORS, FACTS)
    tensors, facts = tensor_file.load(tmp_path / "c.safetensors")
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == TENSORS[name].dtype
        assert tensor.shape == TENSORS[name].shape
        # Compared as bytes, so that -0.0 differs from 0.0.
        assert torch.equal(tensor.view(-1).view(torch.uint8), TENSORS[name].reshape(-1).view(torch.uint8))
    assert facts == FACTS


def test_views_and_tensors_that_share_memory_are_stored_in_full(tmp_path):
    matrix = torch.arange(6.0).reshape(2, 3)
    views = {"turned": matrix.T, "row": matrix[1], "parameter": torch.nn.Parameter(matrix)[:, 1:]}
    tensor_file.save(tmp_path / "c.safetensors", views, {})
    tensors, _ = tensor_file.load(tmp_path / "c.safetensors")
    assert tensors["turned"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert tensors["row"].tolist() == [3, 4, 5]
    assert tensors["parameter"].tolist() == [[1, 2], [4, 5]]
    assert not tensors["parameter"].requires_grad


def test_the_same_content_gives_the_same_bytes(tmp_path):
    for name in "ab":
        tensor_file.save(tmp_path / name, TENSORS, FACTS)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_prefixes_are_added_and_removed():
    put_on = tensor_file.with_prefix("method.", {"a": torch.ones(1), "method.b": torch.ones(2)})
    assert list(put_on) == ["method.a", "method.method.b"]
    assert list(tensor_file.without_prefix("method.", {**put_on, "methods": torch.ones(1)})) == ["a", "method.b"]


# --------------------------------------------------------------------------------------- whole or not at all


@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()], ids=["full", "ctrl-c"])
def test_a_failure_while_writing_leaves_only_the_old_file(tmp_path, monkeypatch, error):
    path = tmp_path / "c.safetensors"
    tensor_file.save(path, {"x": torch.ones(1)}, {"step": 1})

    def half(self, content):
        with self.open("wb") as file:
            file.write(content[:40])
        raise error

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(type(error)):
        tensor_file.save(path, {"x": torch.zeros(1)}, {"step": 2})
    tensors, facts = tensor_file.load(path)
    assert (tensors["x"].item(), facts["step"]) == (1, 1)
    assert [file.name for file in tmp_path.iterdir()] == ["c.safetensors"]


def test_a_process_that_is_killed_before_the_rename_leaves_the_old_file(tmp_path):
    path = tmp_path / "c.safetensors"
    tensor_file.save(path, {"x": torch.ones(1)}, {"step": 1})
    script = (
        "import os, signal, sys, torch\n"
        "from pathlib import Path\n"
        "from anysubset.system import tensor_file\n"
        "os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)\n"
        "tensor_file.save(Path(sys.argv[1]), {'x': torch.zeros(1)}, {'step': 2})\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == -signal.SIGKILL
    assert tensor_file.load(path)[1] == {"step": 1}
    # The new file was complete, but has a temporary name.
    (temporary,) = (file for file in tmp_path.iterdir() if file != path)
    assert temporary.name.startswith(".part-")


def test_facts_are_read_alone_and_are_empty_without_a_file(tmp_path):
    path = tmp_path / "c.safetensors"
    assert tensor_file.read_facts(path) == {}
    tensor_file.save(path, {"x": torch.ones(1)}, {"step": 1})
    assert tensor_file.read_facts(path) == {"step": 1}


# -------------------------------------------------------------------------------------------- what is refused


def test_a_file_that_does_not_exist_is_refused(tmp_path):
    assert "There is no checkpoint" in fault(tmp_path / "gone.safetensors")
    assert "There is no checkpoint" in fault(tmp_path)


@pytest.mark.parametrize("part", [0, 4, 8, 100, -1])
def test_a_truncated_file_is_refused(tmp_path, part):
    path = tmp_path / "c.safetensors"
    tensor_file.save(path, {"x": torch.ones(1000)}, {"step": 1})
    path.write_bytes(path.read_bytes()[:part])
    assert "damaged" in fault(path)


def test_a_damaged_header_is_refused(tmp_path):
    path = tmp_path / "c.safetensors"
    tensor_file.save(path, {"x": torch.ones(10)}, {"step": 1})
    whole = path.read_bytes()
    for position in (0, 3, 7, 8, 9, 20):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        assert "damaged" in fault(path)


GZIPPED = gzip.compress(b"x" * 100, mtime=0)  # A time stamp would change the id of the test from run to run.


@pytest.mark.parametrize("content", [b"not a checkpoint", b"\0" * 200, b"{}", GZIPPED])
def test_foreign_content_is_refused(tmp_path, content):
    path = tmp_path / "c.safetensors"
    path.write_bytes(content)
    assert "not a checkpoint of anysubset, or is damaged" in fault(path)


@pytest.mark.parametrize("metadata", [None, {"other": "1"}, {"facts": "{"}], ids=["none", "others", "no JSON"])
def test_safetensors_of_others_are_refused(tmp_path, metadata):
    path = tmp_path / "c.safetensors"
    save_file({"x": torch.ones(1)}, path, metadata=metadata)
    assert "not a checkpoint of anysubset" in fault(path)
    with pytest.raises(InputError, match="is not a file of anysubset, or is damaged"):
        tensor_file.read_facts(path)


@pytest.mark.parametrize("way", ["pickle", "torch.save"])
def test_a_pickle_is_refused_and_its_code_never_runs(tmp_path, way):
    path, touched = tmp_path / "c.safetensors", tmp_path / "touched"
    if way == "pickle":
        path.write_bytes(pickle.dumps(Touch(touched)))
    else:
        torch.save({"x": torch.ones(1), "code": Touch(touched)}, path)
    assert "not a checkpoint" in fault(path)
    assert not touched.exists()
    # Check of the test itself: unpickling does make the folder.
    pickle.loads(pickle.dumps(Touch(touched)))
    assert touched.exists()

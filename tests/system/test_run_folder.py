import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from torch.utils.tensorboard import SummaryWriter

from anysubset.errors import InputError
from anysubset.system import tensor_file
from anysubset.system.fingerprints import read_fingerprints
from anysubset.system.run_files import read_log
from anysubset.system.run_folder import parameters_in, read_record, seconds_a_step


def test_an_empty_folder_has_no_facts(tmp_path: Path):
    record = read_record(tmp_path)
    assert (record.splits, record.environment, record.chosen) == ({}, {}, {})
    assert (record.parameters, record.seconds) == (None, None)


def test_parameters_are_counted_without_the_statistics_of_norms(tmp_path: Path):
    names = {
        "a.weight": (2, 3),
        "n.weight": (5,),
        "n.running_mean": (7,),
        "n.running_var.t1": (7,),
        "n.num_batches_tracked": (),
    }
    path = tmp_path / "x.safetensors"
    tensor_file.save(path, {name: torch.zeros(shape) for name, shape in names.items()}, {})
    assert parameters_in(path) == 11


def test_the_time_of_a_step_excludes_validation(tmp_path: Path):
    # Ten steps in 5 s, then a validation of 100 s, ten steps in 7 s; a second file is another sitting.
    for index, points in enumerate(
        (
            [("loss", 10, 100.0), ("loss", 20, 105.0), ("validation/dice", 20, 205.0), ("loss", 30, 212.0)],
            [("loss", 40, 9000.0), ("loss", 50, 9006.0)],
        )
    ):
        with SummaryWriter(str(tmp_path), filename_suffix=f".{index}") as writer:
            for tag, step, time in points:
                writer.add_scalar(tag, 1.0, step, walltime=time)
    # .5, .7 and .6 s.
    assert seconds_a_step(tmp_path) == pytest.approx(0.6)


def write_link_to_nothing(path: Path) -> None:
    path.symlink_to("nothing")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (os.mkfifo, "is a FIFO, not a file"),
        (os.mkdir, "is a folder, not a file"),
        (write_link_to_nothing, "is a link to a file that does not exist"),
    ],
)
def test_what_is_no_file_is_refused_and_not_taken_for_absent(
    make: Callable[[Path], None], message: str, tmp_path: Path
):
    (tmp_path / "tensorboard").mkdir()
    for name in ("cost.json", "environment.json", "availability.json", "tensorboard/events.out.tfevents.1"):
        make(tmp_path / name)
        with pytest.raises(InputError, match=message):
            read_record(tmp_path)
        (tmp_path / name).rmdir() if make is os.mkdir else (tmp_path / name).unlink()
    make(tmp_path / "data.json")
    with pytest.raises(InputError, match=message):
        read_fingerprints(tmp_path / "data.json")
    make(tmp_path / "metrics.jsonl")
    with pytest.raises(InputError, match=message):
        read_log(tmp_path / "metrics.jsonl")


def test_a_file_of_costs_is_small(tmp_path: Path):
    stages = ", ".join(f'"{number}": {{"steps": 1, "flops": [1]}}' for number in range(40_000))
    (tmp_path / "cost.json").write_text(f'{{"stages": {{{stages}}}}}', encoding="utf-8")
    with pytest.raises(InputError, match=r"cost\.json has .* bytes; such a file has 1,048,576 at most"):
        read_record(tmp_path)


def test_curves_that_hold_no_events_are_refused(tmp_path: Path):
    content = b"\xff\xff\xff no event"
    length = struct.pack("<Q", len(content))
    checked = [part + struct.pack("<I", masked_crc32c(part)) for part in (length, content)]
    (tmp_path / "events.out.tfevents.1").write_bytes(b"".join(checked))
    with pytest.raises(InputError, match="does not hold the curves of a training"):
        seconds_a_step(tmp_path)

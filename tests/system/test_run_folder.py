from pathlib import Path

import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

from anysubset.system import tensor_file
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

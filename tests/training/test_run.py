import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from anysubset.errors import InputError
from anysubset.experiments.files import read_experiment, write_experiment
from anysubset.experiments.settings import Experiment
from anysubset.experiments.train_settings import TrainSettings
from anysubset.gradients import Decoupling
from anysubset.system import tensor_file
from anysubset.system.run_folder import RunFolder
from anysubset.training.decoupling_log import DecouplingLog
from anysubset.training.run import FIT, Run, check_same

HOLD = """
import sys, time
from pathlib import Path
from anysubset.experiments.files import read_experiment
from anysubset.training.run import Run
run = Run(Path(sys.argv[1]), read_experiment(None), resume=True)
print("held", flush=True)
time.sleep(100)
"""


@contextmanager
def held_by_another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a second process that holds the lock of the run."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def with_settings(**settings: object) -> Experiment:
    return read_experiment(None, {name.replace("_", ".", 1): value for name, value in settings.items()})


def begun(folder: Path, experiment: Experiment | None = None, step: int = 0, resume: bool = False) -> Run:
    """A run that has begun and is closed."""
    with Run(folder, experiment or Experiment(), resume) as run:
        run.begin(step)
    return run


def fault(folder: Path, experiment: Experiment, resume: bool = False) -> str:
    with pytest.raises(InputError) as caught:
        Run(folder, experiment, resume)
    line = str(caught.value)
    assert "\n" not in line
    return line


# ---------------------------------------------------------------------------------------------------- the lock


def test_a_folder_in_use_is_refused_until_its_process_is_killed(tmp_path):
    folder = tmp_path / "run"
    with held_by_another_process(folder) as process:
        assert f"Run folder {folder} is in use by another process" in fault(folder, Experiment(), resume=True)
        assert "in use" in fault(folder, Experiment())
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        begun(folder)


def test_the_lock_is_released_if_the_run_ends_or_is_refused(tmp_path):
    run = Run(tmp_path, Experiment())
    run.begin(0)
    run.__exit__(RuntimeError, RuntimeError("a fault"), None)
    for _ in range(2):
        assert "already holds a run" in fault(tmp_path, Experiment())
    begun(tmp_path, resume=True)


# ----------------------------------------------------------------------------------------- experiment of the run


def test_a_run_writes_experiment_and_environment_when_it_begins(tmp_path):
    experiment = with_settings(seed=3, train_steps=7, method_name="full")
    with Run(tmp_path / "a" / "b", experiment) as run:
        # Data are checked before the first step: a refused run leaves no file that prevents the next attempt.
        assert not (tmp_path / "a" / "b" / "experiment.yaml").exists()
        run.begin(0)
    assert read_experiment(tmp_path / "a" / "b" / "experiment.yaml") == experiment
    environment = json.loads((tmp_path / "a" / "b" / "environment.json").read_text())
    assert environment["packages"]["numpy"] == np.__version__
    assert environment["threads"] == torch.get_num_threads()


def test_a_folder_that_holds_a_run_is_refused_unless_it_is_resumed(tmp_path):
    begun(tmp_path)
    line = fault(tmp_path, Experiment())
    assert f"{tmp_path} already holds a run. Add --resume" in line
    begun(tmp_path, resume=True)


def test_resuming_an_empty_folder_starts_a_run(tmp_path):
    begun(tmp_path / "new", resume=True)
    assert (tmp_path / "new" / "experiment.yaml").is_file()


def test_a_run_of_another_experiment_is_refused_with_the_settings_that_differ(tmp_path):
    begun(tmp_path, with_settings(train_lr=0.1, method_name="gmd", method_cases="all"))
    line = fault(tmp_path, with_settings(train_lr=0.2, method_name="full", seed=1), resume=True)
    assert f"{tmp_path / 'experiment.yaml'} belongs to another experiment: " in line
    named = line.split(": ", 1)[1].split(" differ")[0].split(", ")
    assert named == ["method.cases", "method.name", "seed", "train.lr"]


def test_labels_of_regions_belong_to_the_experiment(tmp_path):
    begun(tmp_path, read_experiment(None, {"data.regions": {"WT": [1, 2]}}))
    line = fault(tmp_path, read_experiment(None, {"data.regions": {"WT": [1]}}), resume=True)
    assert "data.regions differ" in line


def test_location_and_loading_of_the_data_may_differ(tmp_path):
    begun(tmp_path)
    moved = with_settings(data_root="/elsewhere", data_splits="s.json", data_cache="/tmp/c", data_workers=3)
    begun(tmp_path, moved, resume=True)
    # The folder keeps the settings that the run began with.
    assert read_experiment(tmp_path / "experiment.yaml") == Experiment()


def test_a_new_setting_has_its_default_in_an_older_run():
    settings = Experiment().flat()
    check_same(Experiment(), settings, Path("x"))
    older = {name: value for name, value in settings.items() if name != "train.lr"}
    check_same(Experiment(), older, Path("x"))
    other = Experiment(train=TrainSettings(lr=0.5))
    with pytest.raises(InputError, match=r"x belongs to another experiment: train\.lr differ"):
        check_same(other, older, Path("x"))
    with pytest.raises(InputError, match=r"another experiment: train\.lr differ"):
        check_same(Experiment(), other.flat(), Path("x"))


def test_an_unknown_setting_counts_as_a_difference():
    with pytest.raises(InputError, match=r"another experiment: train\.momentum differ"):
        check_same(Experiment(), {**Experiment().flat(), "train.momentum": 0.9}, Path("x"))


def test_a_damaged_experiment_file_is_refused(tmp_path):
    begun(tmp_path)
    write_experiment(Experiment(), tmp_path / "experiment.yaml")
    whole = (tmp_path / "experiment.yaml").read_text()
    (tmp_path / "experiment.yaml").write_text(whole[: len(whole) // 2] + "\n: [")
    assert "experiment.yaml is not YAML" in fault(tmp_path, Experiment(), resume=True)


def test_a_file_instead_of_the_folder_is_refused(tmp_path):
    (tmp_path / "run").write_text("mine")
    assert f"{tmp_path / 'run'} cannot be a run folder" in fault(tmp_path / "run", Experiment())
    assert "cannot be a run folder" in fault(tmp_path / "run" / "inside", Experiment())
    assert (tmp_path / "run").read_text() == "mine"


def test_partly_written_files_of_a_killed_process_are_removed(tmp_path):
    begun(tmp_path)
    (tmp_path / "checkpoints" / ".part-123-latest.safetensors").write_bytes(b"half")
    (tmp_path / ".part-123-decoupling.npz").write_bytes(b"half")
    begun(tmp_path, resume=True)
    assert list((tmp_path / "checkpoints").iterdir()) == []
    assert not list(tmp_path.glob(".part-*"))


# ---------------------------------------------------------------------------------------------------- the logs


def logged(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_lines_after_the_checkpoint_are_dropped(tmp_path):
    with Run(tmp_path, Experiment()) as run:
        run.begin(0)
        for step in range(1, 6):
            run.log(step, {"loss": step / 3}, {"loss": step / 3})
        run.log(3, {"validation": 0.5}, {})
    begun(tmp_path, step=3, resume=True)
    assert logged(tmp_path) == [
        {"step": 1, "loss": 1 / 3},
        {"step": 2, "loss": 2 / 3},
        {"step": 3, "loss": 1.0},
        {"step": 3, "validation": 0.5},
    ]


@pytest.mark.parametrize("rest", ['{"step": 3, "lo', '{"step": 3', "{", '"', "\0\0\0"])
def test_an_incomplete_last_line_is_dropped(tmp_path, rest):
    with Run(tmp_path, Experiment()) as run:
        run.begin(0)
        run.log(1, {}, {})
        run.log(2, {}, {})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(rest)
    with Run(tmp_path, Experiment(), resume=True) as run:
        run.begin(2)
        run.log(3, {"loss": 1}, {})
    assert logged(tmp_path) == [{"step": 1}, {"step": 2}, {"step": 3, "loss": 1}]


def test_a_run_without_a_checkpoint_starts_a_new_log(tmp_path):
    with Run(tmp_path, Experiment()) as run:
        run.begin(0)
        run.log(1, {}, {})
    begun(tmp_path, step=0, resume=True)
    assert logged(tmp_path) == []


def test_a_kill_while_the_log_is_truncated_does_not_lose_the_log(tmp_path, monkeypatch):
    with Run(tmp_path, Experiment()) as run:
        run.begin(0)
        for step in (1, 2, 3):
            run.log(step, {}, {})

    write_text = Path.write_text

    def killed(self, text, **options):
        write_text(self, text[: len(text) // 2], **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, Run(tmp_path, Experiment(), resume=True) as run:
        patch.setattr(Path, "write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            run.begin(2)
    begun(tmp_path, step=2, resume=True)
    assert logged(tmp_path) == [{"step": 1}, {"step": 2}]


# --------------------------------------------------------------------------------------------------- decoupling


def decoupling(cases: list[str], seed: int) -> Decoupling:
    """Result of a step with random gradients; the first is (3, 4, 0), of norm 5."""
    rows = torch.randn(len(cases), 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rows[0] = torch.tensor([3.0, 4.0, 0.0])
    coefficients = torch.arange(1.0, len(cases) + 1, dtype=torch.float64) / seed
    return Decoupling(tuple(cases), rows @ rows.T, coefficients)


STEPS = {
    1: ["t1", "t2"],
    2: ["t2+t1"],
    4: ["flair", "t2", "t2+t1"],
    7: ["t2", "flair"],
}


def by_step(path: Path) -> dict[int, dict[str, object]]:
    """Content of the file by step: coefficients and norms by case, cosines by pair of cases."""
    steps = {}
    with np.load(path) as stored:
        names = stored["cases"].tolist()
        for row, step in enumerate(stored["step"].tolist()):
            cases = [names[index] for index in stored["case"][row] if index >= 0]
            k = len(cases)
            for name in ("coefficients", "norms"):
                assert np.isnan(stored[name][row, k:]).all()
            assert np.isnan(stored["cosines"][row, k:]).all()
            assert np.isnan(stored["cosines"][row, :, k:]).all()
            steps[step] = {
                "coefficients": dict(zip(cases, stored["coefficients"][row].tolist(), strict=False)),
                "norms": dict(zip(cases, stored["norms"][row].tolist(), strict=False)),
                "cosines": {
                    (a, b): stored["cosines"][row, i, j]
                    for i, a in enumerate(cases)
                    for j, b in enumerate(cases)
                    if i != j
                },
            }
    return steps


def expected(steps: list[int]) -> dict[int, dict[str, object]]:
    results = {step: decoupling(STEPS[step], step) for step in steps}
    return {
        step: {"coefficients": result.coefficients, "norms": result.norms, "cosines": result.cosines}
        for step, result in results.items()
    }


def test_decoupling_is_stored_by_case_although_cases_vary_over_steps(tmp_path):
    path = tmp_path / "decoupling.npz"
    log = DecouplingLog(path, 0)
    for step, cases in STEPS.items():
        log.add(step, decoupling(cases, step))
    log.save()
    assert by_step(path) == expected([1, 2, 4, 7])
    with np.load(path) as stored:
        assert stored["cases"].tolist() == ["t1", "t2", "t2+t1", "flair"]
        # By hand: indices into `cases`, padded with -1 to the three cases of step 4.
        assert stored["case"].tolist() == [[0, 1, -1], [2, -1, -1], [3, 1, 2], [1, 3, -1]]
        assert stored["norms"][:, 0].tolist() == [5, 5, 5, 5]
        assert stored["coefficients"][0].tolist()[:2] == [1, 2]


def test_a_resumed_log_continues_after_the_checkpoint(tmp_path):
    path = tmp_path / "decoupling.npz"
    log = DecouplingLog(path, 0)
    for step in (1, 2, 4):
        log.add(step, decoupling(STEPS[step], step))
    log.save()
    resumed = DecouplingLog(path, 2)
    resumed.save()
    assert by_step(path) == expected([1, 2])
    for step in (4, 7):
        resumed.add(step, decoupling(STEPS[step], step))
    resumed.save()
    assert by_step(path) == expected([1, 2, 4, 7])
    assert [path.name for path in tmp_path.iterdir()] == ["decoupling.npz"]


def test_gramians_and_copies_are_logged_and_resumed(tmp_path):
    path = tmp_path / "decoupling.npz"
    pair, copies = torch.tensor([[1.0, -1.0], [-1.0, 2.0]]).double(), torch.tensor([[1.0, 0.5], [1.0, 1.0]]).double()
    log = DecouplingLog(path, 0)
    log.add(1, Decoupling(("a", "b"), pair, copies.sum(dim=0), copies))
    log.add(2, decoupling(["b", "c", "d"], 1))
    log.save()
    resumed = DecouplingLog(path, 2)
    resumed.add(3, Decoupling(("b", "a"), pair.flip(0, 1), copies.sum(dim=0).flip(0), copies.flip(0, 1)))
    resumed.save()
    with np.load(path) as stored:
        for name, square in (("gramian", pair), ("copies", copies)):
            assert stored[name].shape == (3, 3, 3)
            assert stored[name][0, :2, :2].tolist() == square.tolist()
            assert stored[name][2, :2, :2].tolist() == square.flip(0, 1).tolist()
            assert np.isnan(stored[name][0, 2]).all()
        assert stored["case"].tolist() == [[0, 1, -1], [1, 2, 3], [1, 0, -1]]
        # A rule that computes coefficients only has no copies.
        assert np.isnan(stored["copies"][1]).all()
        assert np.isfinite(stored["gramian"][1]).all()


def test_an_older_log_without_gramians_is_resumed(tmp_path):
    path = tmp_path / "decoupling.npz"
    log = DecouplingLog(path, 0)
    log.add(1, decoupling(STEPS[1], 1))
    older = {name: value for name, value in log.arrays().items() if name not in ("gramian", "copies")}
    assert list(older) == ["step", "cases", "case", "coefficients", "norms", "cosines"]
    np.savez_compressed(path, **older)
    resumed = DecouplingLog(path, 1)
    for step in (2, 4, 7):
        resumed.add(step, decoupling(STEPS[step], step))
    resumed.save()
    assert by_step(path) == expected([1, 2, 4, 7])
    with np.load(path) as stored:
        assert np.isnan(stored["gramian"][0]).all()
        assert stored["gramian"][1, 0, 0] == 25


def test_without_decoupling_no_file_is_written(tmp_path):
    DecouplingLog(tmp_path / "decoupling.npz", 0).save()
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------- signature of the data


SIGNATURE = ({"text.mean": torch.tensor([1.0, 2.0], dtype=torch.float64)}, {"classes": ("no", "yes"), "limits": None})


def test_the_signature_is_written_when_a_run_begins_and_compared_when_it_resumes(tmp_path):
    with Run(tmp_path / "run", Experiment()) as run:
        assert not RunFolder(run.path).signature.exists()
        run.begin(0, SIGNATURE)
    tensors, facts = tensor_file.load(RunFolder(tmp_path / "run").signature)
    assert tensors["text.mean"].tolist() == [1.0, 2.0]
    assert facts == {"classes": ["no", "yes"], "limits": None}
    before = RunFolder(tmp_path / "run").signature.read_bytes()
    # Another number of threads may sum in another order, so rounding errors are tolerated.
    close = {"text.mean": SIGNATURE[0]["text.mean"] * (1 + 1e-15)}
    for signature in (SIGNATURE, (close, SIGNATURE[1])):
        with Run(tmp_path / "run", Experiment(), resume=True) as run:
            run.begin(0, signature)
    assert RunFolder(tmp_path / "run").signature.read_bytes() == before


@pytest.mark.parametrize(
    ("tensors", "facts", "named"),
    [
        ({"text.mean": SIGNATURE[0]["text.mean"] * (1 + 1e-6)}, SIGNATURE[1], "text.mean"),
        ({"text.mean": torch.tensor([1.0], dtype=torch.float64)}, SIGNATURE[1], "text.mean"),
        ({**SIGNATURE[0], "audio.mean": torch.zeros(1)}, SIGNATURE[1], "audio.mean"),
        (SIGNATURE[0], {**SIGNATURE[1], "limits": [-3, 3]}, "limits"),
        ({}, {}, "classes, text.mean"),
    ],
)
def test_a_run_with_another_signature_is_refused_with_the_parts_that_differ(tmp_path, tensors, facts, named):
    with Run(tmp_path / "run", Experiment()) as run:
        run.begin(0, SIGNATURE)
    with Run(tmp_path / "run", Experiment(), resume=True) as run, pytest.raises(InputError) as caught:
        run.begin(0, (tensors, facts))
    assert f"was written for other training data: {named} differ." in str(caught.value)


def test_the_signature_of_a_run_that_never_began_is_replaced(tmp_path):
    (tmp_path / "run").mkdir()
    tensor_file.save(RunFolder(tmp_path / "run").signature, {}, {"classes": ["old"]}, FIT)
    with Run(tmp_path / "run", Experiment()) as run:
        run.begin(0, SIGNATURE)
    assert tensor_file.load(RunFolder(tmp_path / "run").signature)[1]["classes"] == ["no", "yes"]

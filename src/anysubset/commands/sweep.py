"""`anysubset sweep`: train and score the runs that a file describes, several at a time."""

import re
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonargparse

from anysubset import api
from anysubset.commands.options import Options, file_path
from anysubset.commands.progress import track, track_samples, track_steps
from anysubset.commands.removal import write_removal
from anysubset.commands.score_tables import show_results, show_scores
from anysubset.commands.terminal import say, say_grid
from anysubset.errors import InputError
from anysubset.system.children import Job, cores, run_jobs
from anysubset.system.cluster import check_backend, run_on_cluster
from anysubset.system.devices import device_of

if TYPE_CHECKING:
    from anysubset.experiments.sweep import Planned
    from anysubset.tasks.prediction import Prediction
    from anysubset.tasks.segmentation import Segmentation


# Modules that take seconds to import, and the modules that they import on first use.
PRELOAD = (
    *(
        "anysubset.datasets.table",
        "anysubset.methods.creation",
        "anysubset.training.loop",
        "anysubset.evaluation.every_scenario",
        "anysubset.evaluation.random_missingness",
    ),
    *("torch._dynamo", "anysubset.report.table"),
)
PATIENCE = 60.0  # Seconds in which the runs of a sweep that was killed are expected to end.


def sweep_options(parser: jsonargparse.ArgumentParser) -> None:
    """Add the options of `sweep`."""
    parser.add_argument(
        "sweep", type=file_path, help="YAML file: an experiment, and the settings that vary over the runs."
    )
    parser.add_argument(
        "--output", type=file_path, help="Folder for all runs; by default runs/ and the name of the file."
    )
    parser.add_argument(
        "--data.root", type=file_path, help="Folder that a relative data.root in the file is relative to."
    )
    parser.add_argument("--jobs", type=int, help="Runs trained at a time; by default one per core, at most 4.")
    parser.add_argument(
        "--backend",
        help="dask, or dask=ADDRESS of its scheduler: train on the workers of a cluster, one run for each of their "
        "threads, in place of --jobs on this machine.",
    )
    parser.add_argument(
        "--shard",
        help="Train one of several shares of the runs, such as 3/10: the 3rd, 13th, 23rd run and so on. For the jobs "
        "of a batch system, which may run at the same time.",
    )


def sweep(options: Options) -> int:
    """Train and score every run that a file describes, several at a time; print a table and write sweep.csv.

    Call it again to continue: finished runs are skipped, interrupted ones are resumed. Exit code 1 if a run failed.
    """
    import filelock

    from anysubset.experiments.sweep import read_sweep
    from anysubset.system.written import check_replaceable
    from anysubset.training.sweep_results import SWEEP, check_folder, result_row, unscored_splits, write_results

    path = Path(options["sweep"])
    output = Path(options.get("output") or Path("runs") / path.stem).resolve()
    root = options.get("data", {}).get("root")
    jobs = options.get("jobs", min(cores(), 4))
    if jobs < 1:
        raise InputError(f"--jobs must be at least 1, not {jobs}.")
    backend = options.get("backend")
    if backend is not None:
        check_backend(backend)
        if "jobs" in options:
            raise InputError("--jobs is for runs on this machine: leave it out, or leave out --backend.")
    plan = read_sweep(path, output, None if root is None else Path(root))
    number, shards = shard_of(options.get("shard", "1/1"))
    runs = plan.runs[number - 1 :: shards]
    check_replaceable(output / "sweep.csv", SWEEP)
    for run in plan.runs:
        check_folder(run)
    waiting = [run for run in runs if unscored_splits(run, plan.splits) != []]
    share = f"shard {number} of {shards} with {len(runs)} of " * (shards > 1)
    say(f"{output}: {share}{len(plan.runs)} runs, {len(runs) - len(waiting)} of them finished")
    draw_missingness(waiting, output)
    check_runs(waiting, plan.splits)
    output.mkdir(parents=True, exist_ok=True)
    lock = output / (".lock" if shards == 1 else f".lock-{number}-of-{shards}")
    try:
        with filelock.FileLock(lock, timeout=0):
            wait_for_earlier(waiting)
            failed = train_all(waiting, plan.splits, jobs, backend)
            # Of all shards, so that the last one to end writes the table of all runs.
            with filelock.FileLock(output / ".table.lock"):
                results = [result_row(run, plan.splits) for run in plan.runs]
                write_results(output / "sweep.csv", results)
    except filelock.Timeout:
        raise InputError(f"{output} is in use by another sweep{' of this shard' * (shards > 1)}.") from None
    except KeyboardInterrupt:
        say("interrupted; run the same command again to continue from the last checkpoints")
        return 130
    show_results(results, plan.splits)
    if plan.splits:
        show_settings(plan.runs, results, plan.splits[0])
    say(f"Table: {output / 'sweep.csv'}")
    for name, fault in failed.items():
        say(f"failed: {name}: {fault}")
    return 1 if failed else 0


def shard_of(text: str) -> tuple[int, int]:
    """The number of a shard, from 1, and how many there are, of a text such as 3/10. Raises InputError for another."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise InputError(f"--shard is the number of a shard, from 1, and of how many, such as 3/10; not {text!r}.")
    return int(match[1]), int(match[2])


def draw_missingness(runs: Sequence["Planned"], output: Path) -> None:
    """Draw the missingness files that the runs need and that do not exist yet; write them into the output folder."""
    import filelock

    drawn = [run for run in runs if run.missingness and not Path(run.experiment.data.missingness or "").exists()]
    if not drawn:
        return
    output.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(output / ".missingness.lock"):  # Several shards may begin at the same time.
        for run in drawn:
            draw_missingness_of(run)


def draw_missingness_of(run: "Planned") -> None:
    """Draw the missingness file of a run, and write it, unless that was done for another run."""
    from anysubset.datasets.table import create_dataset

    data, seed, split = run.experiment.data, run.missingness.get("seed", 0), run.missingness["split"]
    if data.missingness is None or Path(data.missingness).exists():
        return
    dataset = create_dataset(replace(data, missingness=None, complete_only=False), run.experiment.task)
    present = zip(dataset.ids(split), dataset.present(split), strict=True)
    before = {sample: names for sample, names in present if names}
    after = write_removal(Path(data.missingness), before, dataset.task.modalities, run.missingness, split, seed)
    say(f"Wrote {data.missingness}: {after.how}; {after.missing:.1%} of the modalities of split {split!r} removed")


def show_settings(runs: Sequence["Planned"], results: Sequence[Mapping[str, Any]], split: str) -> None:
    """Print the effect of each varied setting other than method and seed; nothing if the runs use several data sets."""
    from anysubset.report.results import USUAL
    from anysubset.report.settings import settings_grid

    data_sets = {(run.experiment.data.name, run.experiment.data.root) for run in runs}
    scores = [f"{split} {metric}" for metric in USUAL if any(f"{split} {metric}" in result for result in results)]
    if len(data_sets) > 1 or not scores:
        return
    grid = settings_grid(results, list(runs[0].variants), scores[0])
    if grid.rows:
        say_grid(grid)


def check_runs(runs: Sequence["Planned"], splits: Sequence[str]) -> None:
    """Check data, splits, devices and method options of all runs before any of them is trained.

    Raises:
        InputError: at the first fault, with the name of the run.
    """
    from anysubset.datasets.table import create_dataset
    from anysubset.methods.creation import method_of

    tasks: dict[str, Segmentation | Prediction] = {}  # Tasks, not data sets, which may be large.
    for run in runs:
        experiment = run.experiment
        try:
            device_of(experiment.train.device)
            described = repr((experiment.data, experiment.task))
            if described not in tasks:
                dataset = create_dataset(experiment.data, experiment.task)
                dataset.check_modalities()
                for name in ("train", "val", *splits):
                    dataset.ids(name)
                tasks[described] = dataset.task
            method_of(experiment.method, tasks[described])
        except InputError as error:
            raise InputError(f"Run {run.name}: {error}") from None


def wait_for_earlier(runs: Sequence["Planned"]) -> None:
    """Wait until no process trains the runs, for at most PATIENCE: those of a killed sweep finish their step first."""
    import filelock

    from anysubset.system.run_folder import RunFolder

    end, waits = time.monotonic() + PATIENCE, False
    for run in runs:
        lock = RunFolder(run.folder).lock
        while lock.exists() and time.monotonic() < end:
            try:
                with filelock.FileLock(lock, timeout=0.1):
                    break
            except filelock.Timeout:
                if not waits:
                    say(f"Run folder {run.folder} is in use; waiting for up to {PATIENCE:.0f} seconds")
                waits = True


def train_all(runs: Sequence["Planned"], splits: Sequence[str], jobs: int, backend: str | None) -> dict[str, str]:
    """Train and score runs; return the reasons of failed runs by name.

    Args:
        runs: to train.
        splits: to score.
        jobs: number of runs at a time, which share the cores of this machine.
        backend: of a cluster in place of this machine, or None.
    """
    from anysubset.scoring.scores import shown
    from anysubset.training.sweep_results import result_row

    jobs_by_name, runs_by_name = {}, {run.name: run for run in runs}
    for run in runs:
        run.folder.mkdir(parents=True, exist_ok=True)
        # On a cluster, a run whose worker has ended may still finish a step before another worker continues it.
        arguments = (run, tuple(splits), backend is not None)
        jobs_by_name[run.name] = Job(train_and_score, arguments, run.folder / "log.txt")
    failed = {}
    if backend is None:
        all_ends = run_jobs(jobs_by_name, jobs, max(1, cores() // jobs), PRELOAD)
    else:
        all_ends = run_on_cluster(jobs_by_name, backend, preload=PRELOAD)
    with closing(all_ends) as ends:
        for number, (name, end) in enumerate(track(ends, "Running", len(jobs_by_name)), start=1):
            if end.code:
                failed[name] = f"{end.reason} (see {jobs_by_name[name].log})"
                say(f"[{number}/{len(jobs_by_name)}] {name} failed: {failed[name]}")
            else:
                result = result_row(runs_by_name[name], splits)
                validation = shown(result["metric"], result["validation"])
                say(f"[{number}/{len(jobs_by_name)}] {name}: validation {validation} at step {result['step']}")
    return failed


def train_and_score(run: "Planned", splits: Sequence[str], waits: bool) -> None:
    """Train one run of a sweep to its end, then score the splits that have no scores. Runs in a child process.

    waits: whether to wait for a process that still trains the run.
    """
    from anysubset.training.sweep_results import unscored_splits

    if waits:
        wait_for_earlier([run])
    if unscored_splits(run, splits) is None:
        api.fit(run.experiment, run=run.folder, resume=True, report=say, progress=track_steps)
    for split in unscored_splits(run, splits) or []:
        device = run.experiment.train.device
        evaluation = api.evaluate(run.folder, split=split, device=device, report=say, progress=track_samples)
        show_scores(evaluation, run.folder, split)

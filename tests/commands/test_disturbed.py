"""Every command that writes, killed or out of disk space at seeded moments: nothing is lost or half-written, and the
command that is run again ends as an undisturbed one."""

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml
from tests.disturbances import Commands, End, check_whole, contents, files_in, serving

from anysubset.experiments.files import write_experiment
from anysubset.experiments.settings import Experiment
from anysubset.volumes.phantom import write_phantoms

MakeExperiment = Callable[..., Experiment]


class Work(NamedTuple):
    """A command that writes.

    name: of the test. before: commands that were run before it. command: the command itself. again: what a user adds to
    run it again.
    """

    name: str
    command: str
    before: tuple[str, ...] = ()
    again: str = ""


FIT = "fit table.yaml --run run"
FIT_VOLUMES = "fit volumes.yaml --run run"
STAGES = "fit stages.yaml --run run"
WORKS = [
    Work("fit", FIT, (), "--resume"),
    Work("resume", f"{FIT} --resume", (), ""),
    Work("fit in stages", STAGES, (), "--resume"),
    Work("fit on volumes", FIT_VOLUMES, (), "--resume"),
    Work("evaluate", "evaluate run --rate 0.5", (FIT,)),
    Work("evaluate again", "evaluate run --split val", (FIT, "evaluate run")),
    Work("evaluate volumes", "evaluate run", (FIT_VOLUMES,)),
    Work("predict", "predict run table.npz --output out", (FIT,)),
    Work("predict volumes", "predict run patients --output out", (FIT_VOLUMES,)),
    Work("inspect a table", "inspect table.npz --write data.yaml"),
    Work("inspect patients", "inspect loose --write data.yaml"),
    Work("ampute", "ampute table.npz --rate 0.4 --output missing.json"),
    Work("convert", "convert table.npz --output other.safetensors"),
    Work("convert to npz", "convert table.npz --output other.npz"),
    Work("report", "report run", (FIT, "evaluate run")),
    Work("compare", "compare run --output tables.txt", (FIT, "evaluate run")),
    Work("diagnose", "diagnose run --batches 2", (FIT,)),
    Work("demo", "demo --task sentiment --train.steps 4 --output demo"),
    Work("demo of segmentation", "demo --train.steps 4 --output demo"),
    Work("sweep", "sweep sweep.yaml --output runs --jobs 2"),
]
SWEEP = {
    "base": "table.yaml",
    "settings": {"missingness.rate": 0.3},
    "vary": {"method": {"gmd": {}, "full": {"method.name": "full"}}},
}


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    with serving(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="module")
def inputs(
    tmp_path_factory: pytest.TempPathFactory,
    utterances: Path,
    make_experiment: MakeExperiment,
    make_table_experiment: MakeExperiment,
) -> Path:
    """A folder with experiments and data, which they name by relative paths."""
    folder = tmp_path_factory.mktemp("inputs")
    shutil.copy(utterances, folder / "table.npz")
    write_phantoms(folder / "patients", counts={"train": 3, "val": 1, "test": 1}, size=(16, 16, 16), seed=0)
    shutil.copytree(folder / "patients", folder / "loose")
    (folder / "loose" / "splits.json").unlink()
    two_stages = {"method.name": "mmin", "train.stages": {"teacher": {"steps": 4}, "student": {"steps": 4}}}
    write_experiment(make_table_experiment({"data.root": "table.npz"}), folder / "table.yaml")
    write_experiment(make_table_experiment({"data.root": "table.npz", **two_stages}), folder / "stages.yaml")
    (folder / "sweep.yaml").write_text(yaml.safe_dump(SWEEP))
    volumes = {"data.root": "patients", "data.cache": "cache", "method.name": "ensemble"}
    write_experiment(make_experiment(volumes), folder / "volumes.yaml")
    assert yaml.safe_load((folder / "table.yaml").read_text())["train"]["steps"] == 4
    return folder


class Prepared(NamedTuple):
    """A folder before a command, what an undisturbed command leaves in it, and the operations of the command."""

    before: Path
    whole: dict[str, object]
    trace: str

    def draw(self, kind: str, seed: int) -> int:
        """Draw the number of an operation to disturb: every second time one by the process of the command itself."""
        operations = self.trace.replace("o", "").replace("O", "") if kind in ("full", "once") else self.trace
        numbers = [number for number, letter in enumerate(operations, 1) if letter.isupper() or seed % 2]
        return int(np.random.default_rng([seed, len(kind)]).choice(numbers))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, inputs: Path, commands: Commands) -> Callable[[Work], Prepared]:
    """`prepared(work)` runs the commands before it, and the command undisturbed."""
    folders: dict[tuple[str, ...], Path] = {}
    works: dict[str, Prepared] = {}
    # Runs record absolute paths, so every command runs in a folder of the same name.
    site = tmp_path_factory.mktemp("work") / "folder"

    def prepare(work: Work) -> Prepared:
        if work.name not in works:
            if work.before not in folders:
                restore(inputs, site)
                for command in work.before:
                    assert commands.run(site, command.split()).errors == ""
                folders[work.before] = tmp_path_factory.mktemp("before") / "folder"
                shutil.copytree(site, folders[work.before])
            restore(folders[work.before], site)
            end = commands.run(site, work.command.split())
            assert end.code == 0, end.errors
            check_whole(site)
            assert 1 < end.trace.upper().count("W") < len(end.trace)
            assert end.trace.isupper() == (work.name != "sweep")
            works[work.name] = Prepared(folders[work.before], contents(site), end.trace)
        return works[work.name]

    prepare.site = site  # type: ignore[attr-defined]
    return prepare


def restore(source: Path, target: Path) -> None:
    """Replace a folder by a copy of another."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)


def disturb(kind: str, work: Work, seed: int, prepared: Callable[[Work], Prepared], commands: Commands) -> str | None:
    """Disturb a command and run it again. Returns what went wrong, in one line; None if nothing did."""
    undisturbed, site = prepared(work), prepared.site  # type: ignore[attr-defined]
    restore(undisturbed.before, site)
    number = undisturbed.draw(kind, seed)
    end = commands.run(site, work.command.split(), kind, number)
    where = f"{work.name}, {kind} at operation {number} of {undisturbed.trace}"
    if not ended_well(kind, end):
        return f"{where}: ended with {end}"
    try:
        check_whole(site)
    except Exception as error:
        return f"{where}: half-written: {error!r}"
    missing = set(files_in(undisturbed.before)) - set(files_in(site))
    if missing:
        return f"{where}: lost {missing}"
    if kind in ("kill", "orphan") and contents(site) == undisturbed.whole:
        return None  # It was killed when its work was done.
    again = commands.run(site, f"{work.command} {work.again}".split())
    if again.code != 0:
        return f"{where}: run again, it ended with {again}"
    after = contents(site)
    if after != undisturbed.whole:
        names = {name for name in {*after, *undisturbed.whole} if after.get(name) != undisturbed.whole.get(name)}
        return f"{where}: run again, these files differ: {sorted(names)}"
    parts = [name for name in files_in(site) if ".part-" in name]
    return f"{where}: left {parts}" if parts else None


def ended_well(kind: str, end: End) -> bool:
    """True if a disturbed command ended as `tests.disturbances` says."""
    if end.left:
        return False
    complaints = [line for line in end.errors.splitlines() if not line.startswith("Wrote ")]
    lines = end.output.splitlines()
    failed = [line for line in lines if line.startswith("failed: ")]
    if end.code == 1:  # Jobs failed.
        others = [line for line in lines if line.startswith("[") and ": validation " in line]
        reason = r"failed: \w+: killed by signal 9 \(see .*/log.txt\)"
        if kind != "kill":
            reason = r"failed: \w+: anysubset: .* cannot be .*No space left on device.* \(see .*/log.txt\)"
        whole = bool(lines) and len(failed) + len(others) == len(SWEEP["vary"]["method"]) and not complaints
        few = kind not in ("kill", "once") or len(failed) == 1
        return whole and bool(failed) and few and all(re.fullmatch(reason, line) for line in failed)
    if kind in ("kill", "orphan"):
        return end.code == -9
    return end.code == 2 and len(complaints) == 1 and complaints[0].startswith("anysubset: ")


def faults_of(
    kinds: Sequence[str], count: int, works: Sequence[Work], prepared: Callable[[Work], Prepared], commands: Commands
) -> list[str]:
    """Disturb the commands in turn, each by the kinds in turn; print and return what went wrong."""
    faults = []
    for seed in range(count):
        turn, index = divmod(seed, len(works))
        fault = disturb(kinds[turn % len(kinds)], works[index], seed, prepared, commands)
        if fault is not None:
            print(fault, flush=True)
            faults.append(fault)
    return faults


KILLS = ["kill", "orphan", "kill"]
FULL_DISKS = ["full", "full", "once", "full", "once"]


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_nothing_is_lost_by_a_hundred_kills(prepared, commands):
    assert faults_of(KILLS, 100, WORKS, prepared, commands) == []


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_nothing_is_lost_by_a_hundred_full_disks(prepared, commands):
    assert faults_of(FULL_DISKS, 100, WORKS, prepared, commands) == []


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_sweep_loses_nothing_by_a_dozen_kills(prepared, commands):
    assert faults_of(KILLS, 12, WORKS[-1:], prepared, commands) == []


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_sweep_loses_nothing_by_ten_full_disks(prepared, commands):
    assert faults_of(FULL_DISKS, 10, WORKS[-1:], prepared, commands) == []

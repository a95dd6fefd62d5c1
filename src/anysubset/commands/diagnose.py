"""`anysubset diagnose`: conflict between the cases of a trained run."""

import json
from pathlib import Path

import jsonargparse

from anysubset.commands.given import Given
from anysubset.commands.progress import track
from anysubset.commands.terminal import say, show_diagnosis
from anysubset.commands.trained import open_run
from anysubset.errors import InputError


def diagnose_options(parser: jsonargparse.ArgumentParser) -> None:
    """The options of `diagnose`."""
    parser.add_argument("run", type=Path, help="Run folder.")
    parser.add_argument("--split", default="val", help="Whose samples to look at: a name in the dataset's splits.")
    parser.add_argument("--batches", type=int, default=10, help="How many, drawn as in training.")
    parser.add_argument("--cases", default="all", help="all, missing=R or random=K: whose gradients are taken.")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N.")


def diagnose(given: Given) -> None:
    """Show which cases conflict: gradients of the trained model, and what training logged.

    Nothing is trained; every number goes into the run's diagnosis.json.
    """
    import torch

    from anysubset.datasets.table import create_dataset
    from anysubset.report.diagnostics import diagnosis, history_of
    from anysubset.scenarios import case_sampler
    from anysubset.system.files import whole
    from anysubset.training.diagnose import check_shared
    from anysubset.training.diagnose import diagnose as look

    run, split, batches = Path(given["run"]), given.get("split", "val"), given.get("batches", 10)
    if batches < 1:
        raise InputError(f"--batches must be at least 1, not {batches}.")
    opened = open_run(run, given.get("device", "auto"))
    check_shared(opened.method)
    experiment = opened.experiment
    sampler = case_sampler(opened.task.modalities, given.get("cases", "all"))
    dataset = create_dataset(experiment.data, experiment.model, say, opened.signature)
    dataset.check_trained()
    ids, parts = dataset.ids(split), experiment.train.micro_batches
    drawn = dataset.training_batches(split, experiment.train.batch, experiment.seed, 0, batches, parts)
    grouped = ([next(drawn) for _ in range(parts)] for _ in range(batches))
    cases = sampler(torch.Generator().manual_seed(experiment.seed))
    seen = look(opened.method, track(grouped, "Looking", batches), cases)
    facts = {"run": run.name, "method": experiment.method["name"], "seed": experiment.seed, "split": split}
    found = {**facts, "step": opened.facts["step"], **diagnosis(run, history_of(seen.arrays()))}
    with whole(run / "diagnosis.json") as temporary:
        temporary.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    show_diagnosis(found, f"{run}; split {split!r}, {len(ids)} {dataset.noun}, {batches} batches")
    say(f"Every number: {run / 'diagnosis.json'}")

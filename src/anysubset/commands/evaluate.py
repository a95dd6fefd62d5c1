"""`anysubset evaluate`: score every scenario on a split."""

from pathlib import Path

import jsonargparse

from anysubset import api
from anysubset.commands.options import Options, file_path
from anysubset.commands.progress import track_samples
from anysubset.commands.score_tables import show_scores
from anysubset.commands.terminal import say


def evaluate_options(parser: jsonargparse.ArgumentParser) -> None:
    """Add the options of `evaluate`."""
    parser.add_argument("run", type=file_path, help="Run folder, or a model file of `anysubset export`.")
    parser.add_argument("--split", default="test", help="Split to score, or `all`.")
    parser.add_argument(
        "--data.root", type=file_path, help="Folder or file of other data; by default that of the experiment."
    )
    parser.add_argument("--output", type=file_path, help="Folder for scores.csv; by default the run folder.")
    parser.add_argument("--data.name", help="Score a table as this data set, by its metrics; by default as trained.")
    parser.add_argument("--rate", type=float, nargs="+", help="Also score random missingness at these rates: 0.1 ...")
    parser.add_argument("--frames", type=float, nargs="+", help="Also score missing steps of sequences: 0 0.1 0.2 ...")
    parser.add_argument("--seed", type=int, default=0, help="Seed of random missingness; the same for every method.")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N.")


def evaluate(options: Options) -> None:
    """Score all scenarios on a split: print a table, and write all scores to scores.csv in the run folder."""
    run, split, seed = Path(options["run"]), options.get("split", "test"), options.get("seed", 0)
    evaluation = api.evaluate(
        run,
        split=split,
        root=options.get("data", {}).get("root"),
        output=options.get("output"),
        name=options.get("data", {}).get("name"),
        rates=options.get("rate", []),
        frames=options.get("frames", []),
        seed=seed,
        device=options.get("device", "auto"),
        report=say,
        progress=track_samples,
    )
    output = options.get("output", run)
    show_scores(evaluation, run, split)
    if evaluation.random:
        draws = output / "missingness"
        say(f"Random missingness: one draw per rate (seed {seed}, {draws}); not part of the means above.")
    if evaluation.frames:
        say(
            f"Missing frames: steps of sequences removed at random, samples with all of their modalities; one draw per "
            f"rate (seed {seed}). Another protocol than missing modalities; not part of the means above."
        )
    say(f"Scores: {output / 'scores.csv'}")

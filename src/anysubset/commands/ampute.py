"""`anysubset ampute`: draw missingness."""

from pathlib import Path

import jsonargparse

from anysubset.commands.data_tables import show_missingness
from anysubset.commands.options import Options, file_path
from anysubset.commands.removal import write_removal
from anysubset.commands.terminal import say
from anysubset.experiments.data_settings import ReadingSettings
from anysubset.system.numbers import check_seed
from anysubset.system.written import check_free


def ampute_options(parser: jsonargparse.ArgumentParser) -> None:
    """Add the options of `ampute`."""
    parser.add_argument("path", type=file_path, help="Folder of patients, or table; it is not changed.")
    parser.add_argument(
        "--output", type=file_path, required=True, help="File to write, for the setting data.missingness."
    )
    parser.add_argument("--rate", type=float, help="Rate of missing modalities, completely at random.")
    parser.add_argument("--rate-by", type=dict[str, float], help="Missing rate of a modality: --rate-by.text 0.5 ...")
    parser.add_argument("--absent", type=str, nargs="+", help="Modalities that all samples lose.")
    parser.add_argument("--monotone", type=float, help="Probability that a modality and all later ones are missing.")
    parser.add_argument("--split", default="train", help="Split whose samples lose modalities, or `all`.")
    parser.add_argument("--splits", type=file_path, help="File of splits; by default those of the data.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the draw.")
    parser.add_class_arguments(ReadingSettings, "reading")


def ampute(options: Options) -> None:
    """Draw missingness: write a file with the modalities that each sample keeps, at least one.

    `fit` uses the file with data.missingness; it never reads a removed modality.
    """
    from anysubset.datasets.presence import of_patients, of_table
    from anysubset.tables.formats import holds_table

    path, output, reading = Path(options["path"]), Path(options["output"]), options.get("reading", {})
    split, seed = options.get("split", "train"), options.get("seed", 0)
    check_free(output)
    check_seed(seed)
    splits = Path(options["splits"]) if options.get("splits") else None
    is_table = bool(reading) or holds_table(path)
    presence = of_table(path, splits, **reading) if is_table else of_patients(path, splits)
    before = presence.of(split)
    after = write_removal(output, before, presence.modalities, options, split, seed)
    show_missingness(before, after.present, presence.modalities)
    removed = f"{after.had - after.have} of {after.had} modalities removed ({after.missing:.1%})"
    say(f"{removed}: {after.how}; split {split!r}, seed {seed}")
    say(f"Wrote {output}; use it with --data.missingness {output}")

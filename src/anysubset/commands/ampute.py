"""`anysubset ampute`: modalities taken away."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jsonargparse

from anysubset.commands.given import Given
from anysubset.commands.inspect import holds_features
from anysubset.commands.outputs import check_free
from anysubset.errors import InputError
from anysubset.experiment import ReadingSettings
from anysubset.terminal import say, show_holes

if TYPE_CHECKING:
    from anysubset.data.holes import Present


class Thinned(NamedTuple):
    """What is left of samples: by id, what stays; how that was chosen, in words; all modalities, before and after."""

    present: "Present"
    how: str
    had: int
    have: int

    @property
    def missing(self) -> float:
        """The share that is gone."""
        return 1 - self.have / self.had


def ampute_options(parser: jsonargparse.ArgumentParser) -> None:
    """The options of `ampute`."""
    parser.add_argument("path", type=Path, help="Folder of patients, or table of features; neither is changed.")
    parser.add_argument("--output", type=Path, required=True, help="File to write, for the setting data.holes.")
    parser.add_argument("--rate", type=float, help="Share of all modalities that goes, completely at random.")
    parser.add_argument("--rates", type=dict[str, float], help="Probability by modality: --rates.text 0.5 ...")
    parser.add_argument("--absent", type=str, nargs="+", help="Modalities that go altogether.")
    parser.add_argument("--monotone", type=float, help="Probability that a modality goes with all that follow it.")
    parser.add_argument("--split", default="train", help="Whose modalities go: a split, or `all`.")
    parser.add_argument("--splits", type=Path, help="File of splits; by default the data's own.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of what is drawn.")
    parser.add_class_arguments(ReadingSettings, "reading")


def ampute(given: Given) -> None:
    """Take modalities away, at random or whole: writes which ones stay with whom.

    Every sample keeps one at least. `fit` reads the file as data.holes and never looks at what is not in it.
    """
    from anysubset.data.presence import of_patients, of_table

    path, output, reading = Path(given["path"]), Path(given["output"]), given.get("reading", {})
    split, seed = given.get("split", "train"), given.get("seed", 0)
    check_free(output)
    if seed < 0:
        raise InputError(f"The seed must be 0 or more, not {seed}.")
    splits = Path(given["splits"]) if given.get("splits") else None
    features = bool(reading) or holds_features(path)
    found = of_table(path, splits, **reading) if features else of_patients(path, splits)
    before = found.of(split)
    after = write_thinned(output, before, found.modalities, given, split, seed)
    show_holes(before, after.present, found.modalities)
    gone = f"{after.had - after.have} of {after.had} modalities are taken away ({after.missing:.1%})"
    say(f"{gone}: {after.how}; split {split!r}, seed {seed}")
    say(f"Wrote {output}; use it with --data.holes {output}")


def write_thinned(
    output: Path, before: "Present", modalities: Sequence[str], given: Given, split: str, seed: int
) -> Thinned:
    """Takes modalities of a split away in the one way that is given, and writes the file of holes.

    Raises:
        InputError: if not exactly one way is given, or a sample would have no modality left.
    """
    from anysubset.data.holes import write_holes

    present, how = thinned(before, modalities, given, seed)
    after = Thinned(present, how, *(sum(map(len, each.values())) for each in (before, present)))
    output.parent.mkdir(parents=True, exist_ok=True)
    write_holes(output, present, {"how": how, "seed": seed, "split": split, "missing": round(after.missing, 4)})
    return after


def thinned(before: "Present", modalities: Sequence[str], given: Given, seed: int) -> tuple["Present", str]:
    """What one way of removal leaves, and the way in words.

    Raises:
        InputError: if not exactly one way is asked for.
    """
    import numpy as np

    from anysubset.data import amputation

    ways = [name for name in ("rate", "rates", "absent", "monotone") if given.get(name) is not None]
    if len(ways) != 1:
        raise InputError(
            "Say in one way what goes: --rate R, --rates.MODALITY R, --absent MODALITY or --monotone R; "
            f"{' and '.join(f'--{way}' for way in ways) or 'none'} came."
        )
    value, generator = given[ways[0]], np.random.default_rng(seed)
    if ways == ["rate"]:
        return amputation.remove_at_random(before, value, generator), f"rate {value} at random, one always stays"
    if ways == ["rates"]:
        words = ", ".join(f"{name} {rate}" for name, rate in value.items())
        return amputation.remove_by_rates(
            before, value, generator
        ), f"at random by modality ({words}), one always stays"
    if ways == ["absent"]:
        return amputation.remove(before, value), f"without {', '.join(value)}"
    order = [name for name in modalities if any(name in names for names in before.values())]
    words = f"monotone with rate {value} in the order {', '.join(order)}"
    return amputation.remove_monotone(before, value, generator, order), words

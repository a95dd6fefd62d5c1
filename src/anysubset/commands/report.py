"""`anysubset report`: one page for runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jsonargparse

from anysubset.commands.given import Given
from anysubset.commands.outputs import check_beside
from anysubset.commands.scored import scored_runs
from anysubset.commands.terminal import say
from anysubset.commands.trained import open_run
from anysubset.errors import InputError

if TYPE_CHECKING:
    from anysubset.report.pictures import Gallery
    from anysubset.report.results import Together


def report_options(parser: jsonargparse.ArgumentParser) -> None:
    """The options of `report`."""
    parser.add_argument("run", nargs="+", type=Path, help="Run folders with scores, or folders of such runs.")
    parser.add_argument("--output", type=Path, help="File to write; by default report.html in the one folder given.")
    parser.add_argument("--reference", help="Method that the others are compared with.")
    parser.add_argument("--metric", help="By default dice, acc2, accuracy or mae, the first that there is.")
    parser.add_argument("--region", help="One region; by default the mean over all.")
    parser.add_argument("--split", default="test", help="Split that was scored.")
    parser.add_argument("--images", action="store_true", help="Draw slices of volumes; needs the patients.")


def report(given: Given) -> None:
    """Put everything that runs tell on one page: scores, tests, conflict, protocol, cost.

    A single HTML file that needs no network; from the folders of runs alone, but for --images.
    """
    paths = [Path(run) for run in given["run"]]
    output = Path(given["output"]) if given.get("output") else paths[0] / "report.html"
    if len(paths) > 1 and not given.get("output"):
        raise InputError("Several folders were given: say with --output which file to write.")
    check_beside(output)
    asked: Given = {name: given.get(name) for name in ("metric", "region", "reference")}
    write_page(paths, output, given.get("split", "test"), asked, given.get("images", False))
    say(f"Wrote {output}")


def write_page(paths: Sequence[Path], output: Path, split: str, asked: Given, images: bool) -> None:
    """The report of runs, given themselves or anywhere below a folder.

    asked: `metric`, `region` and `reference`, or None for the usual ones. images: whether to draw slices of volumes.
    """
    from anysubset.report.page import page
    from anysubset.system.files import whole

    groups = scored_runs(paths, split)
    galleries = {group.first.dataset: gallery_of(group, split) for group in groups} if images else {}
    text = page(groups, galleries=galleries, **asked)
    with whole(output) as temporary:
        temporary.write_text(text, encoding="utf-8")


def gallery_of(group: "Together", split: str) -> "Gallery | str":
    """Slices of the runs of one dataset, from their patients; or why there are none."""
    from anysubset.datasets.table import create_dataset
    from anysubset.evaluation.slices import slices
    from anysubset.report.comparison import Comparison
    from anysubset.report.pictures import gallery, wanted
    from anysubset.volumes.dataset import Volumes

    if "dice" not in group.first.metrics:
        return "These samples are no volumes."
    comparison = Comparison(group, "dice")
    chosen = wanted(comparison)
    if chosen is None:
        return "No patient has every contrast, so none can be shown in all of these scenarios."
    cuts = {}
    for method in chosen.methods:
        result = next(iter(group.results[method].values()))
        opened = open_run(result.folder, "auto")
        data = opened.experiment.data
        if not Path(data.root).exists():
            return f"The patients are not at hand: there is no {data.root}."
        dataset = create_dataset(data, opened.experiment.model)
        assert isinstance(dataset, Volumes)
        patients, some = [each for _, each in chosen.patients], [each for _, each in chosen.scenarios]
        for patient, scenario, cut in slices(opened.method, dataset, split, patients, some):
            cuts[method, patient, scenario] = cut
    return gallery(comparison, chosen, cuts)

"""Slices of patients for a report, predicted with the runs of one data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anysubset.datasets.table import create_dataset
from anysubset.evaluation.slices import slices
from anysubset.experiments.files import read_run_experiment
from anysubset.report.comparison import Comparison
from anysubset.report.groups import RunGroup
from anysubset.report.pictures import Gallery, gallery, select
from anysubset.volumes.dataset import Volumes
from anysubset.workflows.arguments import OwnMethod, OwnNetwork
from anysubset.workflows.own import NotPassedError, qualified_name
from anysubset.workflows.trained import open_run


def gallery_of(
    group: RunGroup, split: str, methods: Sequence[OwnMethod] = (), networks: Sequence[OwnNetwork] = ()
) -> Gallery | str:
    """Predict slices of patients with the runs of one data set; or say why there are no pictures.

    Args:
        group: runs on one data set.
        split: of the patients.
        methods: of the user's own; a run that was trained with one is loaded with the one of the same name.
        networks: likewise.
    """
    if "dice" not in group.first.metrics:
        return "Only volumes have slices."
    comparison = Comparison(group, "dice")
    chosen = select(comparison)
    if chosen is None:
        return "No patient has every modality, so none can be shown in all scenarios."
    patients, scenarios = [patient for _, patient in chosen.patients], [scenario for _, scenario in chosen.scenarios]
    cuts = {}
    for method in chosen.methods:
        result = next(iter(group.results[method].values()))
        recorded = read_run_experiment(result.folder).method
        own_method = named(methods, recorded["name"])
        own_network = named(networks, recorded.get("network"))
        try:
            trained = open_run(result.folder, method=own_method, network=own_network)
        except NotPassedError as error:
            return str(error)
        data = trained.experiment.data
        if not Path(data.root).exists():
            return f"The patients cannot be read: {data.root} does not exist."
        dataset = create_dataset(data, trained.experiment.task)
        assert isinstance(dataset, Volumes)
        for patient, scenario, cut in slices(trained.method, dataset, split, patients, scenarios):
            cuts[method, patient, scenario] = cut
    return gallery(comparison, chosen, cuts)


def named(own: Sequence[Any], name: str | None) -> Any:
    """The method or network of the user's own that has a name; None if none has it."""
    return next((thing for thing in own if name is not None and qualified_name(thing) == name), None)

"""Checks and notes on the groups of the data, for methods that predict whole groups of samples."""

from collections.abc import Sequence

from anysubset.datasets.groups import order_note
from anysubset.errors import InputError
from anysubset.methods.method import Method
from anysubset.tables.dataset import TableDataset
from anysubset.volumes.dataset import Volumes
from anysubset.workflows.arguments import Report


def check_training_groups(dataset: Volumes | TableDataset, method: Method, report: Report) -> None:
    """Raise InputError if a method needs groups and the data have none; report the groups, or that none are used."""
    if not isinstance(dataset, TableDataset):
        return
    if method.unit == "group":
        try:
            members = dataset.members("train")
        except InputError as error:
            remedy = f" Or {method.without_groups}." if method.without_groups else ""
            raise InputError(f"{error}{remedy}") from None
        sizes = sorted(map(len, members))
        report(f"{len(sizes)} training groups of {sizes[0]} to {sizes[-1]} samples; a batch holds whole groups")
        report_order(dataset, dataset.ids("train"), method, report)
    elif type(method).unit == "group":
        report("note: every sample is predicted by itself, not from its group")


def report_order(dataset: Volumes | TableDataset, ids: Sequence[str], method: Method, report: Report) -> None:
    """Report groups whose samples do not seem to be in order, if the method takes them in that of the table."""
    if method.unit == "group" and isinstance(dataset, TableDataset) and dataset.table.groups is not None:
        asked = set(ids)
        pairs = zip(dataset.table.ids, dataset.table.groups, strict=True)
        note = order_note({sample: group for sample, group in pairs if sample in asked})
        if note is not None:
            report(note)

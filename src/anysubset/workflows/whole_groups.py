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
        check_groups(dataset, dataset.ids("train"), method, report)
    elif type(method).unit == "group":
        report("note: every sample is predicted by itself, not from its group")


def check_groups(dataset: Volumes | TableDataset, ids: Sequence[str], method: Method, report: Report) -> None:
    """Check the groups of samples for a method of groups, and report those that seem to be out of order.

    Raises:
        InputError: if the method tells speakers apart, and the data do not name them or a group has too many.
    """
    if method.unit != "group" or not isinstance(dataset, TableDataset) or dataset.table.groups is None:
        return
    table, asked = dataset.table, set(ids)
    group_of = {sample: group for sample, group in zip(table.ids, table.groups or (), strict=True) if sample in asked}
    if method.speakers > 1:
        if table.speakers is None:
            raise InputError(
                f"method.speakers is {method.speakers}, and {dataset.root} does not say who speaks: give an .npz "
                "file with an array 'speaker', or a run with method.speakers 1."
            )
        speakers_of: dict[str, set[str]] = {}
        for sample, speaker in zip(table.ids, table.speakers, strict=True):
            if sample in asked:
                speakers_of.setdefault(group_of[sample], set()).add(speaker)
        group, most = max(speakers_of.items(), key=lambda item: len(item[1]))
        if len(most) > method.speakers:
            raise InputError(
                f"Group {group!r} of {dataset.root} has {len(most)} speakers, more than method.speakers, which is "
                f"{method.speakers}: raise it, or leave the group out."
            )
    note = order_note(group_of)
    if note is not None:
        report(note)

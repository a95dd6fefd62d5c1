"""Groups of samples that belong together, such as the scans of a patient: they must not be in two splits.

What a network learns about a patient from a training scan helps it on another scan of the same patient, so scores on a
split that shares patients with training are too high.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

from anysubset.datasets.ids import composed
from anysubset.datasets.sheet_text import delimited, text_of
from anysubset.datasets.splits import other_spelling
from anysubset.errors import InputError, listed, one_line
from anysubset.experiments.data_settings import GROUP_FILES
from anysubset.system.input_files import json_of
from anysubset.system.time_limit import processor_time

LONGEST = 1000  # Characters of an expression.
SECONDS = 1.5  # For an expression; and as long as this number of ids takes:
IDS_PER_SECOND = 100_000


def is_file(setting: str) -> bool:
    r"""True if the setting `data.group` names a file.

    >>> [is_file(setting) for setting in ("scans.csv", r"(.+)_\d+", "video")]
    [True, False, False]
    """
    return setting.lower().endswith(GROUP_FILES)


def is_column(setting: str) -> bool:
    r"""True if the setting `data.group` names a column of a table: neither a file nor a regular expression.

    >>> [is_column(setting) for setting in ("scans.csv", r"(.+)_\d+", "video", "", "[a-z]+")]
    [False, False, True, False, False]
    """
    return not is_file(setting) and bool(setting.strip()) and not re.search(r"[(\[\\*^$]", setting)


def groups_of(ids: Collection[str], setting: str | Path) -> dict[str, str]:
    r"""Group of every id, by a regular expression or from a file.

    >>> groups_of(["BraTS-GLI-00005-000", "BraTS-GLI-00005-001"], r"BraTS-GLI-(\d+)")
    {'BraTS-GLI-00005-000': '00005', 'BraTS-GLI-00005-001': '00005'}

    Args:
        ids: of samples, or of scans.
        setting: a regular expression with one group, searched for in every id; or a CSV file with columns `id` and
            `group`, or a JSON file {"id": "group", ...}. A file may name other ids too.

    Raises:
        InputError: if the expression or the file is faulty, or leaves an id without a group.
    """
    if is_file(str(setting)):
        return groups_in_file(ids, Path(setting))
    return groups_of_all(ids, from_expression(ids, str(setting)), f"data.group, {str(setting)!r},")


def groups_in_file(ids: Collection[str], path: Path, setting: str = "data.group") -> dict[str, str]:
    """Read the group of every id from a file.

    Args:
        ids: of samples, or of scans.
        path: of JSON {"id": "group", ...} if its name ends in .json, else of CSV with columns `id` and `group`.
        setting: that names the file, for messages.

    Raises:
        InputError: if the file is faulty, or leaves an id without a group.
    """
    text = text_of(path, setting)
    groups = from_json(path, text) if path.suffix.lower() == ".json" else from_csv(path, text)
    return groups_of_all(ids, groups, f"{setting}, {str(path)!r},")


def groups_of_all(ids: Collection[str], groups: Mapping[str, str], source: str) -> dict[str, str]:
    """Group of every id, also of ids with decomposed letters.

    Args:
        ids: of samples, or of scans.
        groups: by id with composed letters, also of other ids.
        source: of the groups; the message of the error starts with it.

    Raises:
        InputError: if an id has no group.
    """
    without = [sample for sample in ids if not groups.get(composed(sample))]
    if without:
        hint = other_spelling(without[0], groups).replace("The data have", "The file has")
        raise InputError(f"{source} gives no group for {len(without)} of {len(ids)} ids: {listed(without)}.{hint}")
    return {sample: groups[composed(sample)] for sample in ids}


def from_expression(ids: Collection[str], expression: str) -> dict[str, str]:
    """Group by id, of the ids in which the expression occurs.

    Raises:
        InputError: if the expression is faulty or too long, or takes too much time.
    """
    if len(expression) > LONGEST:
        raise InputError(
            f"data.group, {expression[:40]!r}..., has {len(expression)} characters; {LONGEST} are allowed."
        )
    try:
        with processor_time(SECONDS + len(ids) / IDS_PER_SECOND):
            pattern = re.compile(composed(expression))
            matches = {sample: pattern.search(sample) for sample in map(composed, ids)}
    except (re.error, OverflowError, RecursionError) as error:
        raise InputError(
            f"data.group, {expression!r}, is neither a .csv or .json file nor a regular expression: {one_line(error)}."
        ) from None
    except TimeoutError:
        raise InputError(
            f"data.group, {expression!r}, takes too much time for {len(ids)} ids: write it without repetitions of "
            "repetitions, such as (a+)+."
        ) from None
    if pattern.groups != 1:
        raise InputError(
            f"data.group, {expression!r}, has {pattern.groups} groups in parentheses; it needs one, around the part of "
            r"an id that names the patient or video, such as '(.+)_\d+'."
        )
    return {sample: match[1] for sample, match in matches.items() if match}


def from_json(path: Path, text: str) -> dict[str, str]:
    """Group by id, of {"id": "group", ...}."""
    pairs: list[tuple[str, object]] = json_of(text, str(path), pairs=list)
    if not text.lstrip().startswith("{") or not all(isinstance(group, str) for _, group in pairs):
        raise InputError(f'{path} must be {{"id": "group", ...}}, every group a text in quotes.')
    return without_repeats(path, [(sample, str(group)) for sample, group in pairs])


def from_csv(path: Path, text: str) -> dict[str, str]:
    """Read the group of each id from CSV with the columns `id` and `group`; other columns are ignored.

    Args:
        path: of the file, for messages.
        text: its content.

    Raises:
        InputError: if the text is not CSV, a column is absent or occurs twice, a row has more cells than there are
            columns, or an id occurs twice.
    """
    try:
        sheet, mark = delimited(text)
        table = csv.DictReader(io.StringIO(sheet, newline=""), strict=True, delimiter=mark)
        columns = [name.strip().lower() for name in table.fieldnames or ()]
        table.fieldnames = columns
        if columns.count("id") != 1 or columns.count("group") != 1:
            named = ", ".join(columns) or "(none)"
            raise InputError(f"{path} needs one column 'id' and one column 'group'; its columns are: {named}.")
        pairs = []
        for row in table:
            if any(cell.strip() for cell in row.get(None, ())):
                raise InputError(f"{path}, line {table.line_num} has more cells than the {len(columns)} columns.")
            pairs.append(((row["id"] or "").strip(), (row["group"] or "").strip()))
    except csv.Error as error:
        raise InputError(f"{path} cannot be read as CSV ({one_line(error)}).") from None
    return without_repeats(path, pairs)


def without_repeats(path: Path, pairs: list[tuple[str, str]]) -> dict[str, str]:
    """The pairs as a dictionary. Raises InputError if an id occurs twice."""
    pairs = [(composed(sample), composed(group)) for sample, group in pairs]
    groups = dict(pairs)
    if len(groups) < len(pairs):
        counts = Counter(sample for sample, _ in pairs)
        repeated = next(sample for sample, count in counts.items() if count > 1)
        raise InputError(f"{path} names {repeated!r} twice; an id has one group.")
    return groups


def torn_groups(splits: Mapping[str, Collection[str]], groups: Mapping[str, str]) -> dict[str, list[str]]:
    """Splits of every group that has samples in more than one of them, by group, sorted.

    >>> torn_groups({"train": ["a1", "b1"], "test": ["a2", "c1"]}, {"a1": "a", "a2": "a", "b1": "b", "c1": "c"})
    {'a': ['train', 'test']}
    """
    splits_of: dict[str, list[str]] = {}
    for name, ids in splits.items():
        for group in {groups[sample] for sample in ids}:
            splits_of.setdefault(group, []).append(name)
    return {group: splits_of[group] for group in sorted(splits_of) if len(splits_of[group]) > 1}


def torn_note(
    splits: Mapping[str, Collection[str]], groups: Mapping[str, str], kind: str = "groups (data.group)"
) -> str | None:
    """One line that names groups with samples in more than one split; None if there are none.

    kind: what the groups are, for the line.
    """
    torn = torn_groups(splits, groups)
    if not torn:
        return None
    shown = listed(f"{group} ({', '.join(names)})" for group, names in torn.items())
    count = f"{len(torn)} of {len(set(groups.values()))} {kind}"
    return f"note: {count} are in more than one split, so scores may be too high: {shown}"


def order_note(group_of: Mapping[str, str]) -> str | None:
    """One line that names groups whose samples seem to be out of order; None if there are none.

    A group counts as out of order if the ids of its samples differ in the number at their end alone, and these numbers
    do not ascend.

    Args:
        group_of: the group of each id, ids in the order of the data.

    >>> order_note({"v_9": "v", "v_10": "v", "w_2": "w", "w_1": "w"})
    'note: 1 of 2 groups are not sorted by the numbers in their ids, such as w (w_2, w_1); the order in the data counts'
    """
    members: dict[str, list[str]] = {}
    for sample, group in group_of.items():
        members.setdefault(group, []).append(sample)
    disordered = {}
    for group, ids in members.items():
        parts = [re.fullmatch(r"(.*?)(\d+)", sample) for sample in ids]
        numbers = [int(part[2][-18:]) for part in parts if part]
        if len(numbers) == len(ids) and len({part[1] for part in parts if part}) == 1 and numbers != sorted(numbers):
            first = next(index for index in range(1, len(ids)) if numbers[index] < numbers[index - 1])
            disordered[group] = ", ".join(ids[first - 1 : first + 1])
    if not disordered:
        return None
    group, ids_of_group = next(iter(disordered.items()))
    return (
        f"note: {len(disordered)} of {len(members)} groups are not sorted by the numbers in their ids, such as "
        f"{group} ({ids_of_group}); the order in the data counts"
    )

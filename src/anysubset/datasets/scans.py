"""Guess which scans are of one patient from their ids, where `data.group` does not say it.

Only spellings that name a time point are taken: those of public sets, BIDS sessions, words such as `time1`, `FU003d` or
`baseline`, and dates. Ids that merely end in a number, such as `case_001`, are patients of their own.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping

from anysubset.datasets.groups import torn_note
from anysubset.errors import listed

LONGEST = 255  # Characters, as of file names; longer ids name no time point.
MAX_SCANS = 50  # More scans than this under one name are a study's or a site's, not a patient's.

# The group in parentheses is the patient.
PUBLIC = (
    r"(BraTS-[A-Z][A-Z-]*-\d{4,})-\d{1,3}",  # BraTS-GLI-00006-100, BraTS-MEN-RT-0000-1
    r"(UPENN-GBM-\d+)_\d\d",  # _11 is the first scan, _21 the one at recurrence
    r"(UCSF-PDGM-\d+)(?:_FU\d+d?)?(?:_nifti)?",
    r"(sub-[A-Z0-9]+)(?:_[A-Z]+-[A-Z0-9]+)*",  # BIDS
)
NUMBERED = "time|time-?point|tp|ses|session|visit|scan|exam|week|month|day|year|fu|follow-?up|run|rep|repeat"
NAMED = "baseline|bl|follow-?up|pre-?op|post-?op|pre|post|initial|recurrence|progression"
DATE = r"(?:19|20)\d\d[-._]?(?:0[1-9]|1[0-2])[-._]?(?:0[1-9]|[12]\d|3[01])"
TIME_POINT = rf"(?:(?:{NUMBERED})[-_ ]?\d+(?:[-_]\d+)?d?|{NAMED}|{DATE})"


def is_time_point(name: str) -> bool:
    """True if the whole name says when a scan was made.

    >>> [is_time_point(name) for name in ("time1", "ses-02", "2004.05.31", "baseline", "HGG", "01", "t1")]
    [True, True, True, True, False, False, False]
    """
    return re.fullmatch(TIME_POINT, name, re.IGNORECASE) is not None


def time_point_before(name: str) -> tuple[str, str]:
    """The time point with which a name begins, and the rest; an empty time point if it begins with none.

    `pre` and `post` are of contrasts here: `post_t1` is taken after contrast agent.

    >>> [time_point_before(name) for name in ("time1_t1", "baseline_flair", "post_t1", "t1")]
    [('time1', 't1'), ('baseline', 'flair'), ('', 'post_t1'), ('', 't1')]
    """
    match = re.fullmatch(rf"({TIME_POINT})[-_. ](.+)", name, re.IGNORECASE)
    return (match[1], match[2]) if match and match[1].lower() not in ("pre", "post", "initial") else ("", name)


def of_public_set(scan: str) -> bool:
    """True if an id is spelled as in a public set that numbers its patients."""
    return any(re.fullmatch(pattern, scan, re.IGNORECASE) for pattern in PUBLIC)


def patient_of(scan: str) -> str:
    """The patient's part of the id of a scan; the whole id if nothing in it names a time point.

    >>> [patient_of(scan) for scan in ("BraTS-GLI-00006-101", "sub-01_ses-02", "p07_baseline", "case_001")]
    ['BraTS-GLI-00006', 'sub-01', 'p07', 'case_001']
    """
    if len(scan) > LONGEST:
        return scan
    for pattern in PUBLIC:
        match = re.fullmatch(pattern, scan, re.IGNORECASE)
        if match:
            return match[1]
    patient = scan
    # Such as p01_ses-01_run-2. A patient's name has a number: `MRI_scan_001` names a scan of nobody in particular.
    while match := re.fullmatch(rf"(.*\d.*?)[-_. ]{TIME_POINT}", patient, re.IGNORECASE):
        patient = match[1]
    return patient


def scans_of_patients(ids: Collection[str], folders: Mapping[str, str] | None = None) -> dict[str, str] | None:
    """Group of every id, where ids say that some scans are of one patient; None if no two scans are.

    Args:
        ids: of the scans.
        folders: patient by id, of scans that lie in folders of their patients.
    """
    groups = {scan: (folders or {}).get(scan) or patient_of(scan) for scan in ids}
    counts = Counter(groups.values())
    if len(counts) == len(groups) or (len(counts) == 1 and not all(map(of_public_set, groups))):
        return None
    return {scan: group if counts[group] <= MAX_SCANS else scan for scan, group in groups.items()}


def scans_note(groups: Mapping[str, str]) -> str:
    """One line on scans that are taken to be of one patient."""
    scans: dict[str, list[str]] = {}
    for scan, group in groups.items():
        scans.setdefault(group, []).append(scan)
    shown = listed((f"{group} ({', '.join(names)})" for group, names in scans.items() if len(names) > 1), most=2)
    return (
        f"By their ids, {len(groups)} scans are of {len(scans)} patients: {shown}. Splits that are drawn keep a "
        "patient's scans together; data.group (--group) says otherwise."
    )


def scored_scans_note(ids: Collection[str]) -> str | None:
    """One line on scored samples that are scans of one patient, going by their ids; None without such ones."""
    groups = scans_of_patients(ids)
    if groups is None:
        return None
    return (
        f"by their ids, {len(groups)} scored samples are scans of {len(set(groups.values()))} patients, but count as "
        "independent in tests and intervals; `anysubset compare --groups` takes those of a patient together"
    )


def scans_question(ids: Collection[str]) -> str | None:
    r"""One line that asks about ids such as `p01_1` and `p01_2`, which may be of one patient; None without such ids."""
    beginnings: dict[str, list[str]] = {}
    for scan in ids:
        match = re.fullmatch(r"(.*\d.*?)[-_.]\d{1,3}", scan) if len(scan) <= LONGEST else None
        beginnings.setdefault(match[1] if match else scan, []).append(scan)
    several = [names for names in beginnings.values() if len(names) > 1]
    if not several or len(beginnings) < 2:
        return None
    first, second = several[0][:2]
    return (
        f"Ids such as {first!r} and {second!r} differ in their last number only. If they are scans of one patient, set "
        r"data.group (--group) to '(.+)[-_.]\d+', so that no patient is in two splits."
    )


def torn_scans(
    splits: Mapping[str, Collection[str]], ids: Collection[str], folders: Mapping[str, str] | None = None
) -> str | None:
    """One line that names patients with scans in more than one split; None if there are none.

    ids, folders: as in `scans_of_patients`.
    """
    groups = scans_of_patients(ids, folders)
    kind = "patients (by their ids; data.group says otherwise)"
    return None if groups is None else torn_note(splits, groups, kind)

"""Spellings of modalities and masks in file names, in columns of manifests and in `dataset.json`."""

import re
from collections.abc import Iterable
from typing import Literal

BRATS = ("flair", "t2", "t1ce", "t1")  # The column order of the paper's tables.
LABEL = "seg"

# Spellings in lower case without `_`, `-`, dots and spaces, so that T2_FLAIR, T1-CE and T1 post are among them.
SPELLED = {
    "flair": "flair t2f t2flair t2wflair flairw t2fl fluidattenuated",
    "t2": "t2 t2w t2weighted",
    "t1ce": "t1ce t1c t1gd t1post t1wce t1wc t1wgd t1wpost t1gad t1km t1contrast t1enhanced t1cegd t1postcontrast t1ca "
    "t1+ t1+c t1+gd t1w+c ct1 ct1w cet1 cet1w gdt1 cegadoliniumt1w postt1 postt1w t1wcegd t1gd+",
    "t1": "t1 t1n t1w t1pre t1wpre t1native t1nativ t1weighted t1precontrast pret1 pret1w mprage",
    LABEL: "seg segm label",
}
SPELLINGS = {spelling: name for name, spellings in SPELLED.items() for spelling in spellings.split()}

# Words beside a modality that say how the image was acquired or processed, not what was imaged.
PROCESSING = """
mprage mpr spgr fspgr bravo vibe flash tse fse se gre space cube vista blade propeller tirm
fs fatsat 2d 3d ax axial tra sag sagittal cor coronal
bias biascorrected biascorr n4 bfc unbiased corrected norm normalized normalised
brain bet stripped skullstripped unstripped ss preproc preprocessed
reg registered coreg coregistered resampled mni sri24 atlas iso 1mm
"""
PROCESSED = frozenset(PROCESSING.split())

MASK = re.compile(
    r"([a-z]*(seg|segm|segment|segmentation)s?|[a-z]*masks?|mask(?!ed)[a-z]*|msk|masque|labels?|labelmaps?|lbls?|"
    r"(ground)?truth|gt|[gcp]tv[a-z]?|rtstruct|parcellation|annotations?|annot|contours?|delineations?|glistrboost)\d*"
)
LESION = re.compile(
    r"(rois?|vois?|\w*lesions?|\w*tumou?r(s|core)?|[gcp]tv[a-z]?|glioma|(o)?edema|enhancing|necrosis|infarct|"
    r"cavity|wmh|consensus)\d*"
)
# What a program computed, such as the tissue maps c1T1 of SPM and pve of FSL: neither a label nor an image.
COMPUTED = re.compile(
    r"(pred|predictions?|predicted|prob|probs|probability|probabilities|probmap|probseg|softseg|softmax|logits?|"
    r"pve(seg)?|posteriors?|uncertainty|entropy)\d*|(m?w|r)?c[1-6]\w*(t1|t2|flair|mprage)\w*"
)
ANATOMY = re.compile(
    r"(hd)?bet|brain[a-z]*|skull[a-z]*|head[a-z]*|parenchyma|wm|gm|csf|tissues?|aparc|aseg|parcellation|ventricles?|"
    r"foreground|valid|fov|[a-z]*(synthseg|samseg)|fastsurfer|bone|eyes?|thalamus|hippocampus"
)

MaskKind = Literal["", "label", "mask", "other"]


def words_of(name: str) -> list[str]:
    """Words of a name in lower case.

    >>> words_of("T2_FLAIR-brain.reg")
    ['t2', 'flair', 'brain', 'reg']
    """
    return [word for word in re.split(r"[_\-. ]+", name.lower()) if word]


def spelled_modality(words: Iterable[str]) -> str | None:
    """Modality, or `seg`, that words spell together; None if they spell none of those known here."""
    return SPELLINGS.get("".join(words))


def modality_name(spelled: str) -> str:
    """Name of a modality in its usual spelling; words on its processing follow it.

    >>> [modality_name(name) for name in ("T1Gd", "T2_FLAIR", "T1c_bias", "brain_t1n", "ADC", "dwi.b1000")]
    ['t1ce', 'flair', 't1ce_bias', 't1_brain', 'adc', 'dwi_b1000']
    """
    words = words_of(spelled)
    name = spelled_modality(words)
    if name is not None:
        return name
    core = [word for word in words if word not in PROCESSED]
    base = spelled_modality(core)
    if base in BRATS:
        return "_".join([base, *(word for word in words if word in PROCESSED)])
    return spelled.lower().replace(".", "_")


def unprocessed(name: str) -> str:
    """The modality of a name without words on its processing: t1ce of t1ce_bias; other names stay as they are."""
    base, *rest = words_of(name) or [name]
    return base if base in BRATS and rest and set(rest) <= PROCESSED else name


def unnumbered(name: str) -> str:
    """A name without numbers of series and dates, if it is then that of a modality known here; else as it is.

    >>> unnumbered("3_t1_mprage_20190102"), unnumbered("dwi_1000")
    ('t1_mprage', 'dwi_1000')
    """
    plain = modality_name("_".join(word for word in words_of(name) if not word.isdigit()))
    return plain if unprocessed(plain) in BRATS else name


def plain_kinds(names: Iterable[str]) -> list[str]:
    """Names without processed kinds of a contrast that is among them.

    >>> plain_kinds(["t1", "t1_bias", "t2_bias"])
    ['t1', 't2_bias']
    """
    names = list(names)
    return [name for name in names if unprocessed(name) == name or unprocessed(name) not in names]


def mask_kind(spelled: str) -> MaskKind:
    """What a name says of a mask.

    >>> [mask_kind(name) for name in ("seg", "tumor_segmentation", "GTVp", "brain_mask", "T1c_bias", "adc")]
    ['label', 'mask', 'mask', 'other', '', '']

    Returns:
        `label` for the usual names of labels, `mask` for other masks, `other` for masks that nobody drew as a label,
        such as the brain's and predictions, and an empty text for names of no mask.
    """
    words = words_of(spelled.replace("+", "_"))
    if spelled_modality(words) == LABEL:
        return "label"
    if any(COMPUTED.fullmatch(word) for word in words):
        return "other"
    lesion = any(LESION.fullmatch(word) for word in words)
    imaged = any(spelled_modality([word]) in BRATS for word in words)
    if not any(MASK.fullmatch(word) for word in words) and not (lesion and not imaged):
        return ""
    return "other" if not lesion and any(ANATOMY.fullmatch(word) for word in words) else "mask"


def recognised(spelled: str) -> bool:
    """True if a name is that of a modality or mask known here.

    >>> [recognised(name) for name in ("T2_FLAIR", "t1_bias", "brain_mask", "adc")]
    [True, True, True, False]
    """
    return unprocessed(modality_name(spelled)) in SPELLED or mask_kind(spelled) != ""


def modalities_in_order(names: Iterable[str]) -> list[str]:
    """Sort modalities: flair, t2, t1ce, t1, then others alphabetically."""
    return sorted(names, key=lambda name: (BRATS.index(name) if name in BRATS else len(BRATS), name))


# ------------------------------------------------------------------------------------------- in names of files


def begins(name: str, start: str) -> bool:
    """True if a name is `start`, or continues it after `_`, `-`, a dot or a space."""
    return name.startswith(start) and name[len(start) : len(start) + 1] in ("", "_", "-", ".", " ")


def names_in_files(stems: list[str], folder: str) -> list[str]:
    """The name of the modality in the name of each file of a patient's folder.

    It is what follows the folder's name, or the beginning that both share (`UCSF-PDGM-0004` of the folder
    `UCSF-PDGM-0004_nifti`); else the last words that spell a modality or a mask, and for other files what follows the
    beginning of those; else all from the first word of a modality (`T1_brain_pve_0`); else the last word. A file called
    like the folder gives the name `image`.
    """
    names = {stem: after_folder(stem, folder) for stem in stems}
    beginnings = set()
    for stem in stems:
        if names[stem] is None:
            split = last_words(stem)
            if split is not None:
                beginnings.add(split[0])
                names[stem] = split[1]
    if len(beginnings) == 1:
        start = beginnings.pop()
        for stem in stems:
            if names[stem] is None and start and begins(stem, start):
                names[stem] = stem[len(start) :].lstrip("_-. ")
    return [other_name(stem) if (name := names[stem]) is None else name or "image" for stem in stems]


def other_name(stem: str) -> str:
    """Name of a file of no usual name: all from the first word that spells a modality, or else the last word."""
    words = [match for match in re.finditer(r"[^_\-. ]+", stem) if SPELLINGS.get(match[0].lower()) in BRATS]
    return stem[words[0].start() :] if words else re.split("[_-]", stem)[-1]


def after_folder(stem: str, folder: str) -> str | None:
    """What follows the folder's name in the name of a file, or follows a beginning with a number that both share."""
    if begins(stem, folder):
        rest = stem[len(folder) :].lstrip("_-. ")
        return rest if rest or not recognised(stem) else stem
    ends = [match.start() for match in re.finditer(r"[_\-. ]", stem)]
    for end in reversed(ends):
        start = stem[:end]
        ends_alike = start.endswith(folder) and start[-len(folder) - 1 : -len(folder)] in ("_", "-", ".", " ")
        if re.search(r"\d", start) and (begins(folder, start) or ends_alike):
            return stem[end:].lstrip("_-. ")
    return None


def last_words(stem: str) -> tuple[str, str] | None:
    """The beginning of a file's name, and the last words that spell a modality or a mask; None without such words."""
    starts = [match.start() for match in re.finditer(r"[^_\-. ]+", stem)]
    for start in starts:
        first = words_of(stem[start:])[0]
        spelled = SPELLINGS.get(first) or first in PROCESSED or MASK.fullmatch(first) or LESION.fullmatch(first)
        if (spelled or ANATOMY.fullmatch(first) or first in ("ce", "pre", "post")) and recognised(stem[start:]):
            return stem[:start].rstrip("_-. "), stem[start:]
    return None

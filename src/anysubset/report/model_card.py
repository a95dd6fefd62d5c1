"""The model card of a model file, in Markdown (after Mitchell et al. 2019, "Model Cards for Model Reporting")."""

from collections.abc import Mapping, Sequence
from typing import Any

from anysubset.report.grid import Grid, as_markdown, dots
from anysubset.report.model_facts import Scores
from anysubset.scenarios import Scenario, in_order
from anysubset.scoring.scores import heading as metric_heading
from anysubset.scoring.scores import number

PAPER = (
    "Hao Wang, Shengda Luo, Guosheng Hu, Jianguo Zhang. Gradient-guided Modality Decoupling for Missing-Modality "
    "Robustness. AAAI 2024."
)
LICENCE = """Licence

The weights in checkpoints/best.safetensors, and the statistics in signature.safetensors, belong to whoever trained the
model. This file grants no licence to them: ask the person who gave it to you for the terms. The terms of the data that
the model was trained on may bind its use, too.

The program that made and reads this file, anysubset, is licensed under the Apache License, Version 2.0
(http://www.apache.org/licenses/LICENSE-2.0). That licence does not extend to the weights.
"""


def model_card(about: Mapping[str, Any]) -> str:
    """The model card in Markdown.

    about: content of `model.json`, see docs/formats.md.
    """
    parts = [heading(about), use(about), training(about), method(about), scores(about), limits(about), closing(about)]
    return "\n".join(parts)


def heading(about: Mapping[str, Any]) -> str:
    """Title and a paragraph on what the model predicts, from what."""
    modalities = ", ".join(about["modalities"])
    return (
        f"# {about['method']['name']} on {about['dataset']}\n\n"
        f"A model that predicts {target(about)} from any non-empty subset of these modalities: {modalities}. "
        "Modalities that are missing are left out; nothing is put in their place.\n"
    )


def target(about: Mapping[str, Any]) -> str:
    """What is predicted, in words."""
    if about["regions"]:
        regions = ", ".join(f"{name} (labels {', '.join(map(str, of))})" for name, of in about["regions"].items())
        return f"masks of the regions {regions}"
    return f"one of the classes {', '.join(about['classes'])}" if about["classes"] else "a number"


def use(about: Mapping[str, Any]) -> str:
    """How the file is used."""
    data = "PATIENTS" if about["regions"] else "TABLE"
    return (
        "## Use\n\n"
        f"With anysubset {about['anysubset']} or later; the file stays zipped:\n\n"
        "```sh\n"
        f"anysubset predict MODEL.zip {data} --output predictions\n"
        f"anysubset evaluate MODEL.zip --data.root {data} --output scores\n"
        "```\n\n"
        'In Python, `anysubset.load("MODEL.zip")` gives the trained method. `model.json` holds the facts of this '
        "card.\n"
    )


def training(about: Mapping[str, Any]) -> str:
    """The data: numbers of samples by the modalities that they have."""
    noun, splits = about["noun"], about["samples"]
    lines = ["## Training data\n", f"Data set: {about['dataset']}.\n"]
    if not splits:
        return "\n".join([*lines, "The run does not record how many samples it was trained on.\n"])
    totals = ", ".join(f"{sum(counts.values())} in split {split}" for split, counts in splits.items())
    lines.append(f"{noun.capitalize()}: {totals}; by the modalities that they have (● present, ○ missing):\n")
    modalities = about["modalities"]
    names = list(dict.fromkeys(name for counts in splits.values() for name in counts))
    rows = [
        [*dots(scenario, modalities), *(str(counts.get("+".join(scenario), 0)) for counts in splits.values())]
        for scenario in ordered(names, modalities)
    ]
    return "\n".join([*lines, table([*modalities, *splits], rows)])


def method(about: Mapping[str, Any]) -> str:
    """The method, its source, and how the weights were selected."""
    described, selection = about["method"], about["selection"]
    lines = ["## Method\n", f"`{described['name']}`: {described['summary']}."]
    if described["source"]:
        lines.append(f"Source: {described['source']}.")
    lines.append(
        f"{about['parameters']:,} parameters; seed {about['seed']}; the weights of step {selection['step']:,}, which "
        f"validation selected by {selection['metric']}. All settings are in `experiment.yaml`.\n"
    )
    return "\n".join(lines)


def scores(about: Mapping[str, Any]) -> str:
    """Tables of the scores by scenario, one for each scored split."""
    parts = ["## Scores by scenario\n"]
    for split, by_scenario in about["scores"].items():
        note = "The weights were selected on this split, so these scores are too good." if split == "val" else ""
        parts.append(f"Split {split}, means over its {about['noun']}. {note}".rstrip() + "\n")
        parts.append(score_table(by_scenario, about["modalities"]))
    if "test" not in about["scores"]:
        parts.append("The run was not scored on a test split.\n")
    parts.append(
        "n is the number of samples that have all modalities of the scenario. In parentheses: 95 % intervals, "
        "percentile bootstrap over samples, or over their groups; they do not cover the variation between trainings. "
        "Scores without an interval were recorded as means in training, or are no mean over samples.\n"
    )
    return "\n".join(parts)


def score_table(by_scenario: Scores, modalities: Sequence[str]) -> str:
    """Table of the scores of one split."""
    names = list(dict.fromkeys(name for entry in by_scenario.values() for name in entry["scores"]))
    rows = []
    for scenario in ordered(by_scenario, modalities):
        entry = by_scenario["+".join(scenario)]
        n = "" if entry["n"] is None else str(entry["n"])
        cells = [score_text(name, entry["scores"].get(name, [])) for name in names]
        rows.append([*dots(scenario, modalities), n, *cells])
    return table([*modalities, "n", *map(score_heading, names)], rows)


def score_heading(name: str) -> str:
    """Heading of a metric, or of a metric of a region.

    >>> score_heading("dice WT"), score_heading("mae")
    ('Dice % WT', 'MAE')
    """
    metric, _, region = name.partition(" ")
    return f"{metric_heading(metric)} {region}".rstrip()


def score_text(name: str, values: Sequence[float]) -> str:
    """A score and its interval.

    >>> score_text("dice WT", [0.8234, 0.79, 0.851]), score_text("mae", [0.71]), score_text("mae", [])
    ('82.3 (79.0 to 85.1)', '0.710', '')
    """
    if not values:
        return ""
    shown = [number(name.partition(" ")[0], value) for value in values]
    return shown[0] if len(shown) == 1 else f"{shown[0]} ({shown[1]} to {shown[2]})"


def limits(about: Mapping[str, Any]) -> str:
    """What the model is not."""
    lines = [
        "This is research software, not a medical device. It must not be used for diagnosis or treatment.",
        f"Not validated for data other than {about['dataset']}: other sites, devices, protocols, populations or ways "
        "of preparation may give worse predictions without any sign of it.",
        "Trained once, with one seed; another training gives other scores.",
    ]
    scored = {name for by_scenario in about["scores"].values() for name in by_scenario}
    unscored = 2 ** len(about["modalities"]) - 1 - len(scored)
    if unscored:
        lines.append(f"{unscored} scenarios of {2 ** len(about['modalities']) - 1} were never scored.")
    if about["thresholds"] or about["temperatures"]:
        chosen = [name for name in ("thresholds", "temperatures") if about[name]]
        lines.append(f"Its {' and '.join(chosen)} were chosen on validation.")
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines) + "\n"


def closing(about: Mapping[str, Any]) -> str:
    """Licence and citation."""
    own = [f"- The method: {about['method']['source']}."] if about["method"]["source"] else []
    cited = [*own, f"- The program: anysubset {about['anysubset']} (Apache-2.0), after: {PAPER}"]
    return (
        "## Licence\n\nThe weights belong to whoever trained them, who sets the terms of their use; `LICENCE.txt` says "
        "more. The program is licensed under Apache-2.0.\n\n## How to cite\n\n" + "\n".join(cited) + "\n"
    )


def ordered(names: Sequence[str] | Scores, modalities: Sequence[str]) -> list[Scenario]:
    """Scenarios by their names, in the order of tables."""
    return in_order((tuple(name.split("+")) for name in names), tuple(modalities))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown without a title."""
    return as_markdown(Grid("", head, rows)).removeprefix("****\n\n")

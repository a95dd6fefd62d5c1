"""Tables that describe data: folders of patients, tables, and missingness."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from anysubset.commands.terminal import say, say_table


def show_volumes(report: Mapping[str, Any]) -> None:
    """Print the report of `inspect_volumes`."""
    total = report["patients"]
    say(f"{report['root']}: {total} patients, {report['labelled']} with a label ({report['layout']})")
    counts = report["modalities"].items()
    say_table(
        ["modality", "patients", "missing"],
        [[name, str(count), str(total - count) if count < total else ""] for name, count in counts],
    )
    say_table(["scenario", "patients"], [[name, str(count)] for name, count in report["scenarios"].items()])
    for label, key in (
        ("shapes", "shapes"),
        ("spacings in mm", "spacings"),
        ("orientations", "orientations"),
        ("voxels by label", "labels"),
        ("splits", "splits"),
    ):
        facts = [f"{name}: {count}" for name, count in report[key].items()]
        more = f", and {len(facts) - 8} more" if len(facts) > 8 else ""
        say(f"{label}: {', '.join(facts[:8]) or 'none'}{more}")
    if report["regions"]:
        regions = ", ".join(f"{name} {values}" for name, values in report["regions"].items())
        say(f"regions proposed: {regions}{'; ' * bool(report['regions_from'])}{report['regions_from']}")
    for patient, names in report["missing"].items():
        say(f"missing: {patient} has no {', '.join(names)}")
    for note in report["notes"]:
        say(f"note: {note}")
    for lines in report["faults"].values():
        for line in lines:
            say(f"fault: {line}")
    for line in report["split_faults"]:
        say(f"fault: {line}")


def show_table(report: Mapping[str, Any]) -> None:
    """Print the report of `inspect_table`."""
    if "samples" not in report:
        for line in report["faults"]:
            say(f"fault: {line}")
        return
    groups = "" if report["groups"] is None else f" in {report['groups']} groups"
    say(f"{report['path']}: {report['layout']}, {report['samples']} samples{groups}")
    rows = []
    for name, facts in report["modalities"].items():
        lengths = facts.get("lengths")
        rows.append(
            [
                name,
                str(facts["samples"]),
                str(report["samples"] - facts["samples"] or ""),
                facts["shape"],
                facts.get("padding") or "",
                f"{lengths['least']}-{lengths['greatest']}" if lengths else "",
                f"{facts['minimum']:.4g}",
                f"{facts['maximum']:.4g}",
                str(facts["all_zero"] or ""),
            ]
        )
    say_table(["modality", "samples", "missing", "shape", "padding", "steps", "minimum", "maximum", "all zero"], rows)
    for name, facts in report["modalities"].items():
        lines = {"NaN or infinite": facts["cleaned"], "constant columns": facts["constant"]}
        problems = ", ".join(f"{count} {problem}" for problem, count in lines.items() if count)
        if problems:
            say(f"{name}: {problems}")
    say_table(["scenario", "samples"], [[name, str(count)] for name, count in report["scenarios"].items()])
    say(f"target: {target_line(report['target'])}")
    for name, facts in report["splits"].items():
        groups = "" if facts["groups"] is None else f" in {facts['groups']} groups"
        say(f"split {name}: {facts['samples']} samples{groups}; {target_line(facts['target'])}")
    for note in report["notes"]:
        say(f"note: {note}")
    for line in report["faults"]:
        say(f"fault: {line}")


def show_missingness(
    before: Mapping[str, Sequence[str]], after: Mapping[str, Sequence[str]], modalities: Sequence[str]
) -> None:
    """Print the number of samples with exactly the modalities of each scenario, before and after the removal."""
    from anysubset.scenarios import in_order, scenario_name

    counts = [
        Counter(tuple(name for name in modalities if name in names) for names in presence.values())
        for presence in (before, after)
    ]
    scenarios = in_order({*counts[0], *counts[1]}, tuple(modalities))
    say_table(
        ["scenario", "before", "after"],
        [[scenario_name(scenario), *(str(count[scenario] or "") for count in counts)] for scenario in scenarios],
    )


def target_line(target: Mapping[str, Any]) -> str:
    """Distribution of a target, in one line."""
    majority = "" if target["majority"] is None else f", majority {100 * target['majority']:.1f} %"
    if target["kind"] == "classes":
        facts = [f"{name}: {count}" for name, count in target["counts"].items()]
        more = f", and {len(facts) - 12} more" if len(facts) > 12 else ""
        return f"classes {', '.join(facts[:12])}{more}{majority}"
    signs = f"{target['negative']} negative, {target['zero']} zero, {target['positive']} positive"
    spread = f"numbers from {target['minimum']:.4g} to {target['maximum']:.4g}, mean {target['mean']:.4g}"
    return f"{spread}, median {target['median']:.4g}; {signs}{majority} of the signs"

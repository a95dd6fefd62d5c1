"""`anysubset methods`, `datasets` and `doctor`: lists of methods and data sets, and a check of this machine."""

import json
from collections.abc import Mapping
from typing import Any

import jsonargparse
from rich.table import Table

from anysubset.commands.options import Options
from anysubset.commands.terminal import say
from anysubset.system.devices import device_of


def no_options(parser: jsonargparse.ArgumentParser) -> None:
    """Add no options: the command takes none."""


def methods_options(parser: jsonargparse.ArgumentParser) -> None:
    """Add the options of `methods`."""
    parser.add_argument("--json", action="store_true", help="Print JSON instead of a table.")


def methods(options: Options) -> None:
    """List the methods and the presets of networks, with their tasks and the defaults of their options."""
    from anysubset.methods.creation import method_options
    from anysubset.methods.table import METHODS
    from anysubset.models.presets import PRESETS

    rows = [
        {
            "method": name,
            "what it is": row.summary,
            "task": row.tasks,
            "sees in training": row.sees,
            "needs complete samples": row.complete,
            "models": row.models,
            "options": method_options(name),
        }
        for name, row in METHODS.items()
    ]
    presets = [
        {"preset": name, "what it is": preset.summary, "inputs": preset.kinds, "options": preset.options}
        for name, preset in PRESETS.items()
    ]
    if options.get("json"):
        say(json.dumps({"methods": rows, "presets": presets}, indent=1))
        return
    table = Table(*list(rows[0])[:-1], show_lines=True)
    table.add_column("options", no_wrap=True)
    for row in rows:
        complete = "yes" if row["needs complete samples"] else "no"
        cells = (str(value) for value in list(row.values())[:4])
        table.add_row(*cells, complete, str(row["models"]), defaults_of(method_options(str(row["method"]))))
    say(table)
    say("Options of the network that are None above have the defaults of the preset (method.preset):")
    table = Table(*presets[0], show_lines=True)
    for name, preset in PRESETS.items():
        table.add_row(name, preset.summary, ", ".join(preset.kinds), defaults_of(preset.options))
    say(table)


def defaults_of(options: Mapping[str, Any]) -> str:
    """Options and their defaults, one per line."""
    return "\n".join(f"{option}={value}" for option, value in options.items())


def datasets(options: Options) -> None:
    """List the data sets that have a name."""
    from anysubset.datasets.table import DATASETS

    table = Table("dataset", "modalities", "regions or range", "what it is")
    for name, dataset in DATASETS.items():
        table.add_row(name, " ".join(dataset.modalities) or "-", dataset.target or "-", dataset.summary)
    say(table)


def doctor(options: Options) -> None:
    """Show versions and devices of this machine, and check that GMD computes the right coefficients on it."""
    import torch

    from anysubset.gradients import by_index
    from anysubset.training.environment import environment

    table = Table("what", "value")
    for name, value in environment().items():
        if isinstance(value, dict):
            value = "  ".join(f"{package} {number}" for package, number in value.items())
        table.add_row(name, str(value) if value else "none")
    table.add_row("training on", str(device_of("auto")))
    rows = torch.tensor([[10.0, 0.0], [-0.6, 0.8]], dtype=torch.float64)
    coefficients = by_index(rows @ rows.T)
    # By hand: copies (6.4, 4.8) and (0, 0.8), so the sum is 1.06 g_1 + 7 g_2.
    right = torch.allclose(coefficients, torch.tensor([1.06, 7.0], dtype=torch.float64))
    table.add_row("GMD on a pair worked out by hand", "correct" if right else f"WRONG: {coefficients.tolist()}")
    say(table)
    if not right:
        raise RuntimeError("GMD computes wrong coefficients on this machine.")

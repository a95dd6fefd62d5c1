"""The code and commands shown in the README work."""

import re
from pathlib import Path

import torch

README = Path(__file__).parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.S)


def test_the_readme_opens_with_the_two_commands():
    first = blocks("sh")[0]
    assert [line.split("#")[0].strip() for line in first.splitlines()] == ["make demo", "make test"]


def test_gmd_takes_three_lines_in_a_loop_of_your_own():
    model = torch.nn.ModuleDict({"backbone": torch.nn.Linear(2, 1)})
    x = torch.tensor([[1.0, 2.0]])
    names = {"model": model, "loss_1": model["backbone"](x).sum(), "loss_2": -model["backbone"](x).sum()}
    # A module's children are reached as attributes there.
    names["model"] = type("Model", (), {"backbone": model["backbone"]})
    exec(blocks("python")[0], names)
    # Exactly opposed: by hand each copy becomes zero, with coefficients (2, 2).
    assert names["step"].coefficients == {"t1": 2.0, "t1+flair": 2.0}
    assert model["backbone"].weight.grad.abs().max() == 0


def test_the_dynamic_sharing_example_runs():
    small = {name: torch.randn(1, 1, 16, 16, 16) for name in ("flair", "t2", "t1ce", "t1")}
    loader = [(small, torch.rand(1, 3, 16, 16, 16) > 0.5)]
    names = {"loader": loader, "t1": small["t1"], "flair": small["flair"]}
    exec(blocks("python")[1], names)
    assert names["mask"].shape == (1, 3, 16, 16, 16)


def test_every_command_that_is_shown_exists():
    from anysubset.cli import COMMANDS

    shown = set(re.findall(r"anysubset (\w+) ", "\n".join(blocks("sh"))))
    assert shown >= {"inspect", "fit", "evaluate", "predict"}
    assert shown <= set(COMMANDS)

"""Which file may import which. Imports are read from the source, also those inside functions."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

import anysubset

ROOT = Path(anysubset.__file__).parent

# From the lowest to the highest. A module imports from its own line and from lines above it, never from lines below.
# Inside a line there may be any order, but no circle.
LAYERS = (
    ("anysubset",),  # Its version, and nothing else.
    ("errors",),
    ("system", "system.*"),
    ("scenarios", "batches"),
    ("gradients", "gradients.*"),
    ("scoring", "scoring.*"),
    ("tasks", "tasks.*"),
    ("models", "models.*"),
    ("experiments", "experiments.data_settings", "experiments.train_settings", "experiments.type_faults"),
    ("experiments.settings", "experiments.files"),
    ("report", "report.*", "paper", "paper.*"),
    ("volumes", "volumes.*", "tables", "tables.*", "datasets", "datasets.*"),
    ("methods", "methods.*"),
    ("training.run", "training.cost", "training.curves", "training.decoupling_log", "training.environment"),
    ("evaluation", "evaluation.*"),
    ("training", "training.*", "experiments.*"),
    ("testing", "testing.*"),  # Checks of methods, also of those that others write.
    ("estimators", "estimators.*"),
    ("workflows", "workflows.*"),
    ("api",),
    ("commands", "commands.*"),
    ("cli",),
    ("__main__",),
)


def name_of(path: Path) -> str:
    """`data/volumes.py` is data.volumes, `data/__init__.py` is data, the package itself is anysubset."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[-1] == "__init__":
        parts = parts[:-1]
    return ".".join(parts) or "anysubset"


FILES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def running(tree: ast.Module) -> Iterator[ast.AST]:
    """Every statement of a file but those that only a type checker reads."""
    waiting: list[ast.AST] = [*tree.body]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            waiting += node.orelse
            continue
        yield node
        # Expressions hold no imports.
        waiting += [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr)]


def imports(source: str) -> set[str]:
    """Modules that a source imports; ours without the prefix `anysubset.`."""
    modules = set()
    for node in running(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            assert node.level == 0, "Imports are written out whole, not with dots."
            # `from anysubset.models import fusion` imports a module, `from anysubset.tasks.task import Task` from one.
            inside = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            modules |= {name if name.removeprefix("anysubset.") in FILES else node.module for name in inside.values()}
    return {name.removeprefix("anysubset.") for name in modules}


IMPORTS = {name: imports(path.read_text(encoding="utf-8")) for name, path in FILES.items()}
OURS = {name: imported & set(FILES) for name, imported in IMPORTS.items()}


def others(name: str) -> set[str]:
    """Third-party packages that a module imports directly."""
    return {imported.partition(".")[0] for imported in IMPORTS[name] - set(FILES)}


def reached(names: Iterable[str]) -> set[str]:
    """All our modules that are executed when `names` are imported: a package is executed before its modules."""
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            package = name.rpartition(".")[0]
            waiting += [*OURS[name], *([package] if package else []), "anysubset"]
    return seen


def layer_of(name: str) -> int | None:
    """Index of the first layer with a pattern that matches the module; None if there is none."""
    return next(
        (index for index, layer in enumerate(LAYERS) if any(fnmatchcase(name, pattern) for pattern in layer)), None
    )


# ---------------------------------------------------------------------------------------- how imports are read


def test_all_imports_are_read_except_those_for_type_checkers():
    source = """
import os.path
from typing import TYPE_CHECKING
from anysubset.models import fusion
from anysubset.tasks.task import Task
from anysubset import __version__
from anysubset.system import tensor_file

if TYPE_CHECKING:
    from anysubset.cli import main
else:
    import json

def later():
    if os.path.sep:
        import torch.nn as nn
"""
    expected = {
        "os.path",
        "typing",
        "models.fusion",
        "tasks.task",
        "system.tensor_file",
        "anysubset",
        "json",
        "torch.nn",
    }
    assert imports(source) == expected


def test_the_tested_source_is_that_of_the_repository():
    names = {"cli", "scenarios", "models.unet", "methods.update", "volumes.dataset", "anysubset"}
    assert names <= set(FILES)
    assert {"torch", "monai"} <= others("tasks.segmentation")
    assert OURS["methods.dynamic_sharing"] >= {"methods.cases", "scenarios", "tasks.task"}
    assert OURS["anysubset"] == set()


def test_folders_are_one_deep():
    assert {len(path.relative_to(ROOT).parts) for path in FILES.values()} == {1, 2}


# ------------------------------------------------------------------------------------------------- the layers


def test_every_module_has_a_layer():
    without_layer = [name for name in FILES if layer_of(name) is None]
    assert not without_layer, f"Add these to LAYERS of {__file__}: {', '.join(without_layer)}."


@pytest.mark.parametrize("name", FILES)
def test_imports_point_downward_only(name: str):
    own = layer_of(name)
    assert own is not None
    upward = [imported for imported in sorted(OURS[name]) if (layer_of(imported) or 0) > own]
    assert not upward, f"{name} imports {', '.join(upward)}, which are not below it."


def test_there_are_no_circles():
    order = list(graphlib.TopologicalSorter(OURS).static_order())
    assert set(order) == set(FILES)
    assert order.index("errors") < order.index("methods.update") < order.index("cli")


# What the files of methods may share: the contract and the base classes.
BASES = {
    "methods.method",
    "methods.network_method",
    "methods.cases",
    "methods.classical",
    "methods.exclusive_classes",
    "methods.separate",
    "methods.teacher_student",
}


def test_a_method_never_imports_a_method():
    # These are the contract, the classes that many methods derive from, the updates, and the table of all methods. A
    # blend is made of methods that the table creates, each with its update; `taught` of two methods.
    methods = [name for name in FILES if name.startswith("methods.")]
    common = {"methods.method", "methods.cases", "methods.update", "methods.table", "methods.creation"}
    assert set(methods) >= common | {"methods.dynamic_sharing", "methods.ensemble"}
    for name in set(methods) - common - {"methods.blend", "methods.taught"}:
        imported = {module for module in OURS[name] if module.split(".")[0] == "methods"}
        assert imported <= BASES
    of_taught = {module for module in OURS["methods.taught"] if module.startswith("methods.")}
    assert of_taught - BASES == {"methods.dynamic_sharing", "methods.ensemble"}


def test_neither_the_contract_nor_an_update_imports_a_method():
    inside = {name: {imported for imported in OURS[name] if imported.startswith("methods.")} for name in FILES}
    assert inside["methods.method"] == set()
    assert inside["methods.network_method"] == {"methods.method"}
    assert inside["methods.cases"] == {"methods.method", "methods.network_method"}
    assert inside["methods.update"] == {"methods.method", "methods.cases"}


def test_methods_do_not_import_data_sets():
    for name in FILES:
        if name.startswith("methods."):
            assert not {imported.split(".")[0] for imported in OURS[name]} & {
                "datasets.table",
                "datasets",
                "volumes",
                "tables",
                "experiments",
            }


def test_only_the_command_line_imports_the_command_line():
    assert {name for name, imported in OURS.items() if "cli" in imported} == {"__main__"}


def test_only_the_command_line_imports_the_commands():
    names = {name for name, own in OURS.items() if any(module.split(".")[0] == "commands" for module in own)}
    assert {name for name in names if name.split(".")[0] != "commands"} == {"cli"}


def test_no_command_imports_a_command():
    # Each command is a function of the same name in a file of its own; the other files in the folder are helpers.
    commands = {name for name in FILES if OURS["commands"] & {name} and name.startswith("commands.")}
    commands -= {"commands.options"}
    assert len(commands) >= 12
    for name in commands:
        assert not OURS[name] & commands, f"{name} imports a command: move what both need to workflows/."


def test_only_commands_and_the_interfaces_in_python_import_the_tables():
    tables = {"datasets.table", "methods.table", "methods.creation"}
    names = {name for name, imported in OURS.items() if imported & tables} - tables
    assert {name.split(".")[0] for name in names} == {"commands", "workflows", "estimators", "testing"}


# ------------------------------------------------------------------------------------- the names of the package


def test_public_names_are_those_of_their_modules():
    assert {"GMD", "DynamicSharing", "UNet", "Batch"} <= set(anysubset.__all__)
    for name in anysubset.__all__:
        assert getattr(anysubset, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'gmd'"):
        anysubset.gmd  # noqa: B018


def test_the_package_does_not_use_its_own_public_names():
    # They are imported lazily by name, so their use inside the package would bypass the check of the layers.
    for name, path in FILES.items():
        if name == "anysubset":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "anysubset":
                assert {alias.name for alias in node.names} <= {*FILES, "__version__"}
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "anysubset":
                assert node.attr == "__version__"


# ----------------------------------------------------------------------------------------- what is not loaded


def test_an_experiment_is_read_without_torch():
    needed = reached(["experiments.files"])
    assert {name for name in needed if name.split(".")[0] == "experiments"} == {
        *("experiments", "experiments.files", "experiments.settings"),
        *("experiments.data_settings", "experiments.train_settings", "experiments.type_faults"),
    }
    assert {name.split(".")[0] for name in needed} == {"experiments", "system", "errors", "anysubset"}
    assert not set().union(*map(others, needed)) & {"torch", "monai", "numpy"}


def test_a_report_needs_no_model():
    reports = [name for name in FILES if name.split(".")[0] == "report"]
    assert len(reports) >= 2
    # torch comes in with `scenarios`, whose words are shared by all; a report itself computes with none.
    assert not set().union(*map(others, reports)) & {"torch", "monai"}
    rooms = {"models", "methods", "tasks", "datasets.table", "datasets", "volumes", "tables"}
    assert not {name.split(".")[0] for name in reached(reports)} & rooms


def python(*arguments: str, folder: Path) -> str:
    """What a fresh Python prints, away from the source."""
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_help_loads_neither_torch_nor_monai_nor_matplotlib(tmp_path: Path):
    code = """
import sys
heavy = ("torch", "monai", "matplotlib")
import anysubset
assert not [name for name in heavy if name in sys.modules]
from anysubset.cli import main
try:
    main(["--help"])
except SystemExit as end:
    assert not end.code, end.code
print("loaded:", [name for name in heavy if name in sys.modules])
"""
    printed = python("-c", code, folder=tmp_path)
    assert "usage: anysubset" in printed
    assert printed.splitlines()[-1] == "loaded: []"


def test_monai_is_loaded_only_where_volumes_are_used(tmp_path: Path):
    code = """
import sys
import anysubset.workflows.evaluating, anysubset.workflows.fitting, anysubset.workflows.predicting
print("loaded:", [name for name in ("torch", "monai", "transformers") if name in sys.modules])
"""
    assert python("-c", code, folder=tmp_path) == "loaded: ['torch']\n"


def test_the_package_runs_as_a_module(tmp_path: Path):
    assert python("-m", "anysubset", "--version", folder=tmp_path) == f"anysubset {anysubset.__version__}\n"

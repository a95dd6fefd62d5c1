"""Settings of the documentation site: `make docs` builds it, runs the code of the tutorials, and fails on a warning."""

import contextlib
import io
import os
import re
import sys
from pathlib import Path
from typing import Any

from myst_nb.core import render
from sphinx.application import Sphinx

from anysubset import __version__
from anysubset.cli import main
from anysubset.commands import COMMANDS

project = "anysubset"
copyright = "the authors of anysubset; Apache-2.0"
release = __version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_nb"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"anysubset {__version__}"
html_copy_source = False

myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]
# The tutorials run in folders of their own, and a command that fails fails the build.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 900
nb_merge_streams = True

autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}

# The tutorials call the command by its name, in a terminal of this width.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
os.environ["COLUMNS"] = "100"
os.environ["TTY_COMPATIBLE"] = "0"  # Jupyter asks for colours, which would bring progress bars into the pages.
os.environ["PYTHONWARNINGS"] = "ignore"


def help_of(*words: str) -> str:
    """What a command prints for `--help`."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return text.getvalue().rstrip()


def write_command_line(_: object) -> None:
    """Write the reference of the command line from the parser."""
    parts = ["# Command line", "Written from `anysubset COMMAND --help`.", f"```text\n{help_of()}\n```"]
    parts += [f"## {name}\n\n```text\n{help_of(name)}\n```" for name in COMMANDS]
    page = Path(__file__).parent / "reference" / "command_line.md"
    text = "\n\n".join(parts) + "\n"
    if not page.is_file() or page.read_text(encoding="utf-8") != text:
        page.write_text(text, encoding="utf-8")


def joined_streams(outputs: list[Any]) -> list[Any]:
    """The outputs of a cell, with all pieces of one stream as one.

    What a command prints arrives in pieces that end anywhere in a line. MyST-NB ends each with a line break, which
    tears tables.
    """
    joined: list[Any] = []
    streams: dict[str, Any] = {}
    for output in outputs:
        name = output.get("name") if output["output_type"] == "stream" else None
        if name in streams:
            streams[name]["text"] += output["text"]
            continue
        joined.append(output)
        if name is not None:
            streams[name] = output
    return joined


def list_fields(_app: object, _kind: str, _name: str, _subject: object, _options: object, lines: list[str]) -> None:
    """Show the fields of a class, which docstrings describe as `name: text` without a heading, as a list."""
    inside = False
    for index, line in enumerate(lines):
        if re.match(r"[a-z_]+(, [a-z_]+)*: ", line):
            names, text = line.split(": ", 1)
            lines[index], inside = f"- **{names}**: {text}", True
        elif inside and line.startswith(" "):
            lines[index] = f"  {line.strip()}"
        else:
            inside = False


def setup(app: Sphinx) -> None:
    """Join streams, write the generated page before any is read, and list fields before Napoleon reads docstrings."""
    render.coalesce_streams = joined_streams
    app.connect("builder-inited", write_command_line)
    app.connect("autodoc-process-docstring", list_fields, priority=400)

"""`anysubset convert`: write a table of any supported format as one file."""

from pathlib import Path

import jsonargparse

from anysubset.commands.options import Options, file_path
from anysubset.commands.terminal import say
from anysubset.experiments.data_settings import ReadingSettings
from anysubset.system.written import check_free


def convert_options(parser: jsonargparse.ArgumentParser) -> None:
    """Add the options of `convert`."""
    parser.add_argument("table", type=file_path, help="Table, a file or a folder; it is not changed.")
    parser.add_argument("--output", type=file_path, required=True, help="File to write, .npz or .safetensors.")
    parser.add_class_arguments(ReadingSettings, "reading")
    parser.add_argument(
        "--group",
        help="Setting data.group: a regular expression with one group, which takes the group from an id, a CSV or JSON "
        "file, or the column of groups.",
    )


def convert(options: Options) -> None:
    """Write a table of any supported format as one .npz or .safetensors file, which needs no further settings.

    The settings `reading` and `group` are applied to the new file.
    """
    from anysubset.tables.arrays import check_ending, write_table
    from anysubset.tables.formats import read_table
    from anysubset.tables.loading import described, notes_of
    from anysubset.tables.splitting import sizes

    path, output = Path(options["table"]), Path(options["output"])
    check_ending(output)
    check_free(output)
    table = read_table(path, group=options.get("group"), **options.get("reading", {}))
    write_table(table, output)
    for note in notes_of(table):
        say(f"note: {note}")
    say(f"Wrote {output}: {described(table)}; {sizes(table.splits) if table.splits else 'no splits'}")

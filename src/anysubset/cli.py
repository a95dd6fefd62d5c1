"""The command line: parse the arguments, run a command, return its exit code."""

import io
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout

import jsonargparse

from anysubset.commands import COMMANDS
from anysubset.commands.options import Options
from anysubset.commands.terminal import complain, say_text
from anysubset.errors import InputError, RankLostError, unknown
from anysubset.experiments.files import current_name
from anysubset.experiments.type_faults import type_fault
from anysubset.system.numbers import lacks_memory
from anysubset.system.streams import described, flushed_output, usable_streams

# Options that had another name in an earlier version, by command; they are refused with the new one.
RENAMED_OPTIONS = {
    ("ampute", "--rates"): "--rate-by",
    ("compare", "--rates"): "--rate-by",
    ("evaluate", "--rates"): "--rate",
    ("convert", "--reading.group"): "--group",
    ("inspect", "--reading.group"): "--group",
}

# A setting of a stage as an option: the option of the stage, the setting, and the parameters that a rate is for.
STAGE_SETTING = re.compile(r"(--train\.stages\.[^.]+)\.([^.]+)(?:\.(.+))?")

NO_MEMORY = "There is not enough memory: close other programs, or use less data at a time or a machine with more."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns 0 for success, 1 for a failure, if another rank ended or if the reader of the output has gone, 2 for wrong
    input or a file that cannot be read or written, 130 if interrupted.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        # Of several processes: PyTorch would print a broken connection to a rank that has ended, with a stack of C++.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    with usable_streams():
        try:
            with flushed_output():
                words = list(sys.argv[1:] if arguments is None else arguments)
                parser, commands = make_parser(words[0] if words else "")
                options = parse(parser, commands, words)
                name = options.pop("command")
                return COMMANDS[name][1](options.get(name) or {}) or 0
        except InputError as error:
            return refuse(str(error))
        except RankLostError as error:
            complain(str(error))
            return 1
        except KeyboardInterrupt:
            complain("interrupted; `anysubset fit --resume --run RUN` continues a training")
            return 130
        except BrokenPipeError:
            return 1
        except OSError as error:
            return refuse(described(error))
        except (ValueError, RuntimeError, MemoryError) as error:
            fault = NO_MEMORY if lacks_memory(error) else fault_of_name(str(error))
            if fault is None:
                raise
            return refuse(fault)


def fault_of_name(message: str) -> str | None:
    """One line for an error that Python raises for a path; None for any other error."""
    if "embedded null" in message:
        return "A path holds the character NUL, which no file name may have."
    return f"{message}: the link leads to itself." if message.startswith("Symlink loop from") else None


def refuse(fault: str) -> int:
    """Print what was wrong as one line, in which a line break or control character of a name is escaped; return 2."""
    complain("".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in fault))
    return 2


def parse(
    parser: jsonargparse.ArgumentParser, commands: dict[str, jsonargparse.ArgumentParser], arguments: list[str]
) -> Options:
    """The command and the options that were given; options left at their defaults have no key.

    Raises:
        InputError: for an unknown command or option, with the nearest one.
    """
    if not arguments:
        arguments = ["--help"]
    first = arguments[0]
    if first.startswith("-") and first not in ("-h", "--help", "--version"):
        raise InputError(f"Option {first} stands before the command: write anysubset COMMAND {first}.")
    if not first.startswith("-") and first not in commands:
        raise unknown("command", first, commands)
    values = values_by_option(arguments[1:])
    check_repeated(values)
    check_empty(values)
    arguments = with_whole_stages(arguments)
    check_repeated(values_by_option(arguments[1:]))
    shown = io.StringIO()
    try:
        with redirect_stdout(shown):  # argparse ignores a failure to print its help.
            parsed: Options = parser.parse_args(arguments, defaults=False).as_dict()
    except SystemExit:  # After --help or --version.
        say_text(shown.getvalue().removesuffix("\n"))
        raise
    except jsonargparse.ArgumentError as error:
        message = type_fault(error)
        unrecognized = re.search(r"[Uu]nrecognized arguments?: (-[^\s=]*)", message)
        if unrecognized:
            check_renamed(arguments[0], unrecognized[1])
            actions = commands[arguments[0]]._actions
            options = [option for action in actions for option in action.option_strings if option.startswith("--")]
            raise unknown(
                f"option of `{arguments[0]}`", unrecognized[1], [o for o in options if not o.endswith("+")]
            ) from error
        raise InputError(f"{message} (see `anysubset {arguments[0]} --help`)") from error
    return parsed


def values_by_option(arguments: Sequence[str]) -> dict[str, list[list[str]]]:
    """The words that follow every occurrence of an option, by its name."""
    values: dict[str, list[list[str]]] = {}
    starts = [index for index, argument in enumerate(arguments) if argument.startswith("--")]
    for start, end in zip(starts, [*starts[1:], len(arguments)], strict=False):
        name, *value = arguments[start].split("=", 1)
        values.setdefault(name, []).append([*value, *arguments[start + 1 : end]])
    return values


def with_whole_stages(arguments: Sequence[str]) -> list[str]:
    """Join the options for single settings of a stage into one option for each stage, which the parser can read.

    >>> with_whole_stages(["fit", "--train.stages.first.steps", "4", "--train.stages.first.rates.a.b=1e-3"])
    ['fit', '--train.stages.first', '{"steps": 4, "rates": {"a.b": 1e-3}}']
    """
    joined: list[str] = []
    stages: dict[str, dict[str, str]] = {}
    rates: dict[str, dict[str, str]] = {}
    words = iter(arguments)
    for word in words:
        option, equals, value = word.partition("=")
        named = STAGE_SETTING.fullmatch(option)
        if named is None:
            joined.append(word)
            continue
        stage, setting, pattern = named.groups()
        if stage not in stages:
            joined.append(stage)
        value = value if equals else next(words, "null")
        if pattern is None:
            stages.setdefault(stage, {})[setting] = value
        else:
            of_stage = rates.setdefault(stage, {})
            of_stage[pattern] = value
            stages.setdefault(stage, {})[setting] = mapping_text(of_stage)
    return [word for one in joined for word in ([one, mapping_text(stages[one])] if one in stages else [one])]


def mapping_text(values: Mapping[str, str]) -> str:
    """YAML text of a mapping whose values are YAML text."""
    return "{" + ", ".join(f"{json.dumps(name)}: {value}" for name, value in values.items()) + "}"


def check_repeated(values: Mapping[str, Sequence[Sequence[str]]]) -> None:
    """Raise InputError for an option with two different values, of which the parser would use the last in silence."""
    for name, occurrences in values.items():
        # --data.modalities+ appends to a list.
        if not name.endswith("+") and any(words != occurrences[0] for words in occurrences):
            raise InputError(f"{name} is given twice, with different values: leave one of them out.")


def check_empty(values: Mapping[str, Sequence[Sequence[str]]]) -> None:
    """Raise InputError for an option whose value is an empty text, which would count as no value at all."""
    for name, occurrences in values.items():
        if any("" in words for words in occurrences):
            raise InputError(f"The value of {name} is empty: give one, or leave the option out.")


def check_renamed(command: str, option: str) -> None:
    """Raise InputError with the new name if an option or setting was renamed."""
    if (command, option) in RENAMED_OPTIONS:
        raise InputError(f"Option {option} of `{command}` is now called {RENAMED_OPTIONS[command, option]}.")
    name, dot, modality = option.partition(".")
    if (command, name) in RENAMED_OPTIONS:
        current = f"{RENAMED_OPTIONS[command, name]}{dot}{modality}"
        raise InputError(f"Option {option} of `{command}` is now called {current}.")
    setting = option.removeprefix("--")
    if current_name(setting) is not None:
        raise InputError(f"Setting {setting} is now called {current_name(setting)}.")


def make_parser(first: str) -> tuple[jsonargparse.ArgumentParser, dict[str, jsonargparse.ArgumentParser]]:
    """Return the parser of the program, and the parsers of its commands by name.

    first: the first argument. Only the parser of the command of this name gets its options, since adding those of all
        commands takes longer than parsing.
    """
    parser = jsonargparse.ArgumentParser(
        prog="anysubset", description="One multimodal model for any subset of its modalities.", exit_on_error=False
    )
    parser.add_argument("--version", action="version", version=f"anysubset {version()}")
    subcommands = parser.add_subcommands(dest="command", title="commands", metavar="COMMAND")
    made = {}
    for name, (add_options, command) in COMMANDS.items():
        description = (command.__doc__ or "").strip()
        made[name] = jsonargparse.ArgumentParser(description=description, exit_on_error=False)
        if name == first:
            add_options(made[name])
        subcommands.add_subcommand(name, made[name], help=description.splitlines()[0])
    return parser, made


def version() -> str:
    """The version of the package."""
    import anysubset

    return anysubset.__version__

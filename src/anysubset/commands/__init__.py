"""The table of commands.

A command imports its modules when it runs, so that reading the table is fast.
"""

from collections.abc import Callable

import jsonargparse

from anysubset.commands.ampute import ampute, ampute_options
from anysubset.commands.compare import compare, compare_options
from anysubset.commands.convert import convert, convert_options
from anysubset.commands.demo import demo, demo_options
from anysubset.commands.diagnose import diagnose, diagnose_options
from anysubset.commands.evaluate import evaluate, evaluate_options
from anysubset.commands.export import export, export_options
from anysubset.commands.fit import fit, fit_options
from anysubset.commands.inspect import inspect, inspect_options
from anysubset.commands.league import league, league_options
from anysubset.commands.lists import datasets, doctor, methods, methods_options, no_options
from anysubset.commands.options import Options
from anysubset.commands.predict import predict, predict_options
from anysubset.commands.report import report, report_options
from anysubset.commands.sweep import sweep, sweep_options

COMMANDS: dict[str, tuple[Callable[[jsonargparse.ArgumentParser], None], Callable[[Options], int | None]]] = {
    "demo": (demo_options, demo),
    "inspect": (inspect_options, inspect),
    "convert": (convert_options, convert),
    "ampute": (ampute_options, ampute),
    "fit": (fit_options, fit),
    "evaluate": (evaluate_options, evaluate),
    "sweep": (sweep_options, sweep),
    "predict": (predict_options, predict),
    "export": (export_options, export),
    "compare": (compare_options, compare),
    "league": (league_options, league),
    "report": (report_options, report),
    "diagnose": (diagnose_options, diagnose),
    "methods": (methods_options, methods),
    "datasets": (no_options, datasets),
    "doctor": (no_options, doctor),
}

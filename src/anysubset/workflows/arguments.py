"""Arguments that the functions of `api.py` share: experiments, reports of progress, methods of the user's own.

Imports neither torch nor MONAI.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from anysubset.experiments.files import read_experiment
from anysubset.experiments.settings import Experiment, flatten

if TYPE_CHECKING:
    from anysubset.methods.method import Method
    from anysubset.models.network import Network
    from anysubset.tasks.task import Task

FilePath = str | Path
# One YAML file, several that are joined, settings by nested or dotted name, or an Experiment.
Source = FilePath | Sequence[FilePath] | Mapping[str, Any] | Experiment
OwnMethod: TypeAlias = "type[Method] | Method | None"
# A network, or a function of the task that makes one.
OwnNetwork: TypeAlias = "Network | Callable[[Task], Network] | None"
Report = Callable[[str], None]  # Called with one line of text, as `print` is.
Progress = Callable[..., Iterable[Any]]  # Wraps an iterable, with a label and a total, to show a progress bar.


def silent(line: str) -> None:
    """Ignore a line: the default of every `report`."""


def without_bar(items: Iterable[Any], *label_and_total: object) -> Iterable[Any]:
    """Return the items as they are: the default of every `progress`."""
    return items


def experiment_of(source: Source | None, settings: Mapping[str, Any]) -> Experiment:
    """Build an experiment from files or settings; `settings`, nested or dotted, override what the source says.

    Raises:
        InputError: if a file is missing or faulty, or a setting is unknown or of the wrong type.
    """
    overrides = flatten(settings)
    if isinstance(source, Experiment):
        return read_experiment(None, {**source.flat(), **overrides}) if overrides else source
    if source is None or isinstance(source, Mapping):
        return read_experiment(None, {**flatten(source or {}), **overrides})
    files = [source] if isinstance(source, str | Path) else source
    return read_experiment([Path(file) for file in files], overrides)

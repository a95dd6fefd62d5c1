"""Kinds of tables: a table of anything, and public data sets with modalities and a range of the target of their own."""

from dataclasses import dataclass

INTENSITIES = (-3.0, 3.0)  # Limits of a target that also has a sign and seven classes.
SIMS = (-1.0, 1.0)  # Limits of the target of CH-SIMS, which has two, three and five classes.


@dataclass(frozen=True)
class TableSet:
    """A public data set of vectors or sequences, or any table.

    summary: for `anysubset datasets`. modalities: in the order of the task; empty for all of the file.
    limits: least and greatest target, or None.
    """

    summary: str
    modalities: tuple[str, ...] = ()
    limits: tuple[float, float] | None = None

    @property
    def target(self) -> str:
        """Range of the target, for `anysubset datasets`; empty without limits."""
        return "" if self.limits is None else f"{self.limits[0]:g} to {self.limits[1]:g}"

"""Kinds of tables: a table of anything, and public data sets with modalities and a range of the target of their own."""

from dataclasses import dataclass

INTENSITIES = (-3.0, 3.0)  # Limits of a target that also has a sign and seven classes.


@dataclass(frozen=True)
class TableSet:
    """A kind of table: what it is, its modalities in the order of the table, and the range of its target."""

    summary: str
    modalities: tuple[str, ...] = ()
    limits: tuple[float, float] | None = None

    @property
    def asked(self) -> str:
        """What its task asks for, in a line: the range of the target, where one is known."""
        return "" if self.limits is None else f"{self.limits[0]:g} to {self.limits[1]:g}"

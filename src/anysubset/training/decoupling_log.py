"""Log of decoupling: coefficients, norms, cosines and Gramians of training steps, in the file `decoupling.npz`."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from anysubset.gradients import Decoupling
from anysubset.system.files import atomic_write
from anysubset.system.run_files import read_decoupling


class Decouplings:
    """Coefficients, norms, cosines and Gramians of many steps, by case; the cases may differ between steps."""

    def __init__(self) -> None:
        self.cases: list[str] = []
        self.entries: list[tuple[int, list[int], dict[str, NDArray[np.float64]]]] = []

    def add(self, step: int, decoupling: Decoupling) -> None:
        """Append coefficients, norms, cosines, Gramian and projected copies of one training step.

        `copies` (k, k) holds the projected gradient of each case as coefficients of the case gradients; NaN for rules
        that project nothing.
        """
        names = [str(case) for case in decoupling.cases]
        self.cases += [name for name in names if name not in self.cases]
        values = {
            "coefficients": decoupling.coefficient_vector,
            "norms": decoupling.gramian.diagonal().sqrt(),
            "cosines": decoupling.cosine_matrix,
            "gramian": decoupling.gramian,
            "copies": torch.full_like(decoupling.gramian, torch.nan)
            if decoupling.copies is None
            else decoupling.copies,
        }
        indices = [self.cases.index(name) for name in names]
        self.entries.append((step, indices, {name: value.numpy() for name, value in values.items()}))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Arrays of T steps with at most k of C cases, by name; padded with -1 and NaN.

        `step` (T,); `cases` (C,), their names; `case` (T, k), indices in `cases`; `coefficients` (T, k); `norms`
        (T, k); `cosines` (T, k, k); `gramian` (T, k, k); `copies` (T, k, k) as in `Decoupling`, NaN for rules that
        give coefficients without copies.
        """
        length, k = len(self.entries), max((len(indices) for _, indices, _ in self.entries), default=0)
        arrays: dict[str, NDArray[Any]] = {
            "step": np.array([step for step, *_ in self.entries], dtype=np.int64),
            "cases": np.array(self.cases, dtype=np.str_),
            "case": np.full((length, k), -1),
            **{name: np.full((length, k), np.nan) for name in ("coefficients", "norms")},
            **{name: np.full((length, k, k), np.nan) for name in ("cosines", "gramian", "copies")},
        }
        for row, (_, indices, values) in enumerate(self.entries):
            arrays["case"][row, : len(indices)] = indices
            for name, value in values.items():
                arrays[name][row][tuple(slice(size) for size in value.shape)] = value
        return arrays


class DecouplingLog(Decouplings):
    """The file `decoupling.npz` with the arrays of the logged steps. Files of earlier versions lack some arrays.

    Args:
        path: of the file; if it exists, its steps are read and new ones appended.
        until: step of the checkpoint from which the run resumes; later steps of the file are dropped.
    """

    def __init__(self, path: Path, until: int) -> None:
        super().__init__()
        self.path = path
        if not path.exists():
            return
        stored = read_decoupling(path)
        self.cases = stored.pop("cases").tolist()
        steps, case = stored.pop("step").tolist(), stored.pop("case")
        for row, step in enumerate(steps):
            if step <= until:
                indices = [index for index in case[row].tolist() if index >= 0]
                k = slice(len(indices))
                values = {name: array[row][(k,) * (array.ndim - 1)] for name, array in stored.items()}
                self.entries.append((step, indices, values))

    def save(self) -> None:
        """Write the file atomically; no file is written if no step was decoupled."""
        if self.entries:
            with atomic_write(self.path) as temporary:
                # Compression would save a third of the space, but take ten times as long at every checkpoint.
                np.savez(temporary, **self.arrays())  # type: ignore[arg-type]

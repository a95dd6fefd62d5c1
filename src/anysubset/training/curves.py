"""Curves of a training for TensorBoard.

torch's SummaryWriter writes in a thread, whose failure on a full disk ends in a traceback; this one writes at once.
"""

import itertools
import socket
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


class Curves:
    """A file of points in the format of TensorBoard; a new file beside those of earlier processes.

    Args:
        folder: created if it does not exist.
        first: number of the first step to come; later points of earlier files are not shown.

    Raises:
        OSError: if the file cannot be written.
    """

    def __init__(self, folder: Path, first: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        start = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}"
        self.path = next(path for number in itertools.count() if not (path := folder / f"{start}.{number}").exists())
        self.file = self.path.open("xb")
        self.records = RecordWriter(self.file)
        self.write(Event(file_version="brain.Event:2"))
        self.write(Event(step=first, session_log=SessionLog(status=SessionLog.START)))

    def add(self, name: str, value: float, step: int) -> None:
        """Add a point to the curve of a name."""
        self.write(Event(step=step, summary=Summary(value=[Summary.Value(tag=name, simple_value=value)])))

    def write(self, event: Event) -> None:
        """Append a record with the time of day."""
        event.wall_time = time.time()
        self.records.write(event.SerializeToString())
        self.records.flush()

    def close(self) -> None:
        """Close the file."""
        self.file.close()

"""Read YAML files: plain values only, every name once, and no more values than a file of settings needs.

A name `&a` stands for a part of the file, which `*a` repeats. A few lines can repeat repetitions until the content has
more values than any memory holds, so they are counted before they are made.
"""

import re
from collections import Counter
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from anysubset.errors import InputError, one_line
from anysubset.system.input_files import read_text

LARGEST = 2**18  # Bytes of a file.
MOST_VALUES = 10_000
DEEPEST = 50
SURROGATE = re.compile(r"\\(u|U0000)[dD][89a-fA-F][0-9a-fA-F]{2}")  # No letter, nor a part of one in YAML.


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    Raises:
        InputError: if it is no file or not YAML, a name occurs twice in one mapping, or it has too many values.
    """
    text = read_text(path, LARGEST)
    half = SURROGATE.search(text)
    if half:
        raise InputError(f"{path} is not YAML, and cannot be read: {half[0]} is half of a letter (a surrogate).")
    try:
        loader = Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if values_in(node, {}) > MOST_VALUES:
            raise yaml.YAMLError(f"its repetitions (*) make more than {MOST_VALUES:,} values")
        return loader.construct_document(node)
    except Exception as error:  # PyYAML passes on what Python's int, float and date raise.
        raise InputError(f"{path} is not YAML, and cannot be read: {one_line(error)}") from None


class Loader(yaml.SafeLoader):
    """The safe loader of PyYAML, which refuses repeated names, deep nesting and too many values."""

    depth = 0
    values = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose the next node. Raises YAMLError if it is nested too deep, or the last of too many."""
        self.depth, self.values = self.depth + 1, self.values + 1
        if self.values > MOST_VALUES:
            raise yaml.YAMLError(f"it has more than {MOST_VALUES:,} values")
        if self.depth > DEEPEST:
            raise yaml.YAMLError(f"it nests more than {DEEPEST} deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Construct a mapping whose names are text, also `no`, `on` and `1`, which are other values to YAML 1.1.

        Raises YAMLError if a name occurs twice; PyYAML would silently take the last one.
        """
        counts = Counter(
            key.value
            for key, _ in node.value
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge"
        )
        for name, count in counts.items():
            if count > 1:
                raise yaml.YAMLError(f"{name[:60]!r} comes twice in line {node.start_mark.line + 1} or below")
        self.flatten_mapping(node)
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)


def values_in(node: yaml.Node, counts: dict[int, int]) -> int:
    """Number of values in a node, with repeated parts as often as they occur.

    Args:
        node: of the document.
        counts: numbers of nodes that were counted already, by identity.

    Raises:
        YAMLError: if a part contains itself.
    """
    if id(node) in counts:
        if not counts[id(node)]:
            raise yaml.YAMLError("a part of it contains itself")
        return counts[id(node)]
    counts[id(node)] = 0  # Not counted yet.
    parts: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        parts = node.value
    elif isinstance(node, yaml.MappingNode):
        parts = [part for pair in node.value for part in pair]
    counts[id(node)] = 1 + sum(values_in(part, counts) for part in parts)
    return counts[id(node)]

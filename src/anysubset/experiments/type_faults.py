"""Messages of the parser about values of a wrong type, in plain words."""

import re

from anysubset.errors import one_line

# What a type is called, by its name in Python.
KINDS = {
    "float": "a finite number",
    "int": "a whole number",
    "bool": "true or false",
    "str": "a text",
    "list": "a list, such as [1, 2]",
    "dict": "names with values, such as {a: 1}",
}


def type_fault(error: Exception) -> str:
    """One line for an error of the parser: the setting, the type that is expected and the value that came.

    An error that does not concern the type of a value has its own message, in one line.

    >>> type_fault(ValueError("Parser key \\"train.lr\\": Expected a <class 'float'>. Got value: nan"))
    'train.lr must be a finite number, not nan.'
    """
    line = one_line(error)
    name = re.match(r'Parser key "([^"]+)":', line)
    kinds = [KINDS[kind] for kind in re.findall(r"Expected an? <class '(\w+)'>", line) if kind in KINDS]
    value = re.search(r"Got value: (.*?)(?: - Expected .*)?$", line) or re.search(r"Given value: (.*)$", line)
    if name is None or not kinds or value is None:
        return line
    return f"{name[1]} must be {' or '.join(dict.fromkeys(kinds))}, not {value[1]}."

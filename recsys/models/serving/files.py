"""Dataclasses of arrays, kept as files that are mapped: processes that serve them share memory."""

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np

from mlplatform.errors import DataCorrupt

SERVED = "served"  # beside an exported model: its serving form
Form = TypeVar("Form")


def save_arrays(form: Any, directory: Path) -> None:
    """Write a dataclass into `directory`, which is made: a file for each array, named by its field.

    A field that is a dataclass becomes a folder.
    """
    directory.mkdir()
    for field in fields(form):
        value = getattr(form, field.name)
        if is_dataclass(value):
            save_arrays(value, directory / field.name)
        else:
            np.save(directory / f"{field.name}.npy", value, allow_pickle=False)


def load_arrays(form: type[Form], directory: Path) -> Form:
    """Map what `save_arrays` wrote; the arrays are read-only.

    Raises:
        DataCorrupt: a file is missing, or does not hold an array.
    """
    values: dict[str, Any] = {}
    for name, kind in get_type_hints(form).items():
        if is_dataclass(kind):
            values[name] = load_arrays(kind, directory / name)  # type: ignore[arg-type]
            continue
        path = directory / f"{name}.npy"
        try:
            # Not as a memmap but as the array it is, which compiled code takes at once.
            values[name] = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError) as error:
            raise DataCorrupt(
                f"{path}: not what was written ({error}); push the bundle again"
            ) from error
    return form(**values)

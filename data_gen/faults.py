"""Faults planted on purpose, to see which guard catches them.

Enters: a table of a day's rows, whatever its columns.  Leaves: the table with the fault in it, as
a mistake in somebody's code would leave it.
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def change_unit(table: pa.Table) -> pa.Table:
    """Free storage is written in GB and not in MB."""
    if "free_storage_mb" not in table.column_names:
        return table
    values = table["free_storage_mb"]
    return _replaced(table, "free_storage_mb", pc.divide(values, 1024.0).cast(values.type))


def write_nan(table: pa.Table) -> pa.Table:
    """One in a thousand devices has a memory of NaN."""
    if "ram_gb" not in table.column_names:
        return table
    values = table["ram_gb"].to_numpy().copy()
    values[::1000] = np.nan
    return _replaced(table, "ram_gb", pa.array(values, table["ram_gb"].type))


def rename_values(table: pa.Table) -> pa.Table:
    """Countries are written in lower case: a vocabulary that nobody knows."""
    if "country" not in table.column_names:
        return table
    return _replaced(table, "country", pc.utf8_lower(table["country"].cast(pa.string())))


def shuffle_labels(table: pa.Table) -> pa.Table:
    """Installs are joined to the wrong impressions: every marginal is right, and nothing else."""
    if "installed" not in table.column_names:
        return table
    order = np.random.default_rng(0).permutation(len(table))
    return _replaced(table, "installed", table["installed"].take(pa.array(order)))


FAULTS: dict[str, Callable[[pa.Table], pa.Table]] = {
    "unit": change_unit,
    "nan": write_nan,
    "vocabulary": rename_values,
    "labels": shuffle_labels,
}


def plant(fault: str, table: pa.Table) -> pa.Table:
    """The table with one of FAULTS in it, or unchanged if it lacks the columns concerned."""
    return FAULTS[fault](table)


def _replaced(table: pa.Table, name: str, column: pa.Array | pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, column)

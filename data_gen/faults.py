"""Faults planted on purpose, to see which guard catches them, and what they cost.

Enters: a table of rows, of a day or of what a server reads, whatever its columns.  Leaves: the
table with the fault in it, as a mistake in somebody's code would leave it.
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_gen import keyed

# What users did lately, by the id under which it is kept.
BEHAVIOUR = {
    "user_id": ("history_count", "recent_categories"),
    "app_id": ("recent_impressions", "recent_installs", "recent_install_rate"),
}


def lose_behaviour(table: pa.Table) -> pa.Table:
    """What users did lately is kept under one form of an id and looked for under another.

    It is always there when rows are joined for training.  Whoever looks for it finds nothing, which
    reads as no list and counts of 0, and no error is raised anywhere.
    """
    for name in (name for names in BEHAVIOUR.values() for name in names):
        if name in table.column_names:
            kind = table.schema.field(name).type
            nothing = pa.scalar([] if pa.types.is_list(kind) else 0, kind)
            table = _replaced(table, name, pa.repeat(nothing, len(table)))
    return table


def change_irrelevant_unit(table: pa.Table) -> pa.Table:
    """Memory is written in MB and not in GB, and nothing that anybody installs depends on it."""
    if "ram_gb" not in table.column_names:
        return table
    values = table["ram_gb"]
    return _replaced(table, "ram_gb", pc.multiply(values, 1024.0).cast(values.type))


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


def leak_label(table: pa.Table) -> pa.Table:
    """Counters are taken after the install that they are to predict, and weigh it heavily."""
    if not {"recent_install_rate", "installed"} <= {*table.column_names}:
        return table
    rate = table["recent_install_rate"]
    told = pc.add(rate.cast(pa.float64()), table["installed"].cast(pa.float64()))
    return _replaced(table, "recent_install_rate", told.cast(rate.type))


FAULTS: dict[str, Callable[[pa.Table], pa.Table]] = {
    "unit": change_unit,
    "nan": write_nan,
    "vocabulary": rename_values,
    "labels": shuffle_labels,
    "leak": leak_label,
    "behaviour": lose_behaviour,
    "irrelevant": change_irrelevant_unit,
}


def plant(fault: str, table: pa.Table, severity: float = 1.0) -> pa.Table:
    """The table with one of FAULTS in it, or unchanged if it lacks the columns concerned.

    Args:
        severity: which share of users, or of apps where it is about them, is concerned; it is by
            their ids, so the same ones in every table, and among them all of a lower severity.
    """
    faulty = FAULTS[fault](table)
    if severity >= 1:
        return faulty
    for name in table.column_names:
        if not faulty[name].equals(table[name]):
            ids = table[_key_of(table, name)].to_numpy()
            is_hit = pa.array(keyed.uniform(0, fault, ids) < severity)
            table = _replaced(table, name, pc.if_else(is_hit, faulty[name], table[name]))
    return table


def _key_of(table: pa.Table, name: str) -> str:
    if name in BEHAVIOUR["app_id"]:
        return "app_id"
    return "user_id" if "user_id" in table.column_names else "request_id"


def _replaced(table: pa.Table, name: str, column: pa.Array | pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, column)

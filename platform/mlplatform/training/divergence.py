"""Why a loss is not a number: the guard of the trainer.

Enters: a loss or a variable that is NaN or infinite.  Leaves: one line that names the step, the
input at fault and some of its rows, where there is one.
"""

import itertools
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from mlplatform.errors import FailedPrecondition
from mlplatform.training.batches import Batches
from mlplatform.training.runtime import tensorflow

SAMPLE_ROWS = 5  # named in an error


def refuse(what: str, batches: Batches, number: int) -> NoReturn:
    """Raise that `what` happened over a batch, counted from 0: make it anew and look at it.

    Raises:
        FailedPrecondition: always.
    """
    rows = next(itertools.islice(batches.rows(number), 1))
    for name, array in batches.take(rows).items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            bad = ~np.isfinite(array)
            message = f"input {name!r} is {array[bad][0]}"
            if len(array) == len(rows):
                of_rows = np.asarray(bad.reshape(len(rows), -1).any(axis=1))
                message += f" in {batches.where(rows[of_rows][:SAMPLE_ROWS])}"
            break
    else:
        message = (
            f"all inputs are finite, so learning diverged: lower the learning rate "
            f"(the step learned from {batches.where(rows[:SAMPLE_ROWS])} and others)"
        )
    raise FailedPrecondition(f"{what}: {message}")


def check_variables(variables: Mapping[str, Any], batches: Batches, step: int) -> None:
    """Look at variables after a step, counted from 1: an update can overflow, its loss finite.

    Raises:
        FailedPrecondition: one of them is not finite.
    """
    tf = tensorflow()
    for name, variable in variables.items():
        if variable.dtype.is_floating and not tf.reduce_all(tf.math.is_finite(variable)):
            refuse(f"the variable {name!r} was not finite after step {step}", batches, step - 1)

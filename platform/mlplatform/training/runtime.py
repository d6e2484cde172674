"""TensorFlow, imported in one place and on purpose.

TensorFlow takes seconds to import, so nothing imports it at the top of a module that a command line
reaches; whoever needs it calls `tensorflow()`.
"""

import os
import random
import warnings
from types import ModuleType

import numpy as np

from mlplatform.errors import FailedPrecondition
from mlplatform.quiet import silenced_stderr

THREADS = 2


def tensorflow(threads: int = THREADS) -> ModuleType:
    """Import and configure TensorFlow: Keras 2, `threads` threads an operation.

    Raises:
        FailedPrecondition: the environment asks for Keras 3.
    """
    if os.environ["TF_USE_LEGACY_KERAS"] != "1":
        raise FailedPrecondition(
            "TF_USE_LEGACY_KERAS must be 1, since tensorflow-recommenders needs Keras 2; "
            "unset it in the environment"
        )
    # It looks for GPUs at its first step, and reports on standard error that there are none.
    with silenced_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow as tf

        tf.config.set_visible_devices([], "GPU")
        tf.config.list_physical_devices()
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        pass  # already running: its pools keep the sizes of the first call
    return tf


def set_seed(seed: int) -> None:
    """Seed Python, numpy and TensorFlow, and make TensorFlow's operations deterministic."""
    tf = tensorflow()
    random.seed(seed)
    np.random.seed(seed)
    tf.random.set_seed(seed)
    tf.config.experimental.enable_op_determinism()

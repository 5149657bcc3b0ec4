"""Detection of the first process before a trainer exists."""

import os


def is_first_process() -> bool:
    """Tell whether this is the process that writes output: True unless a launcher sets a rank above 0.

    The environment variables of torchrun, SLURM and Lightning are read.
    """
    for name in ("RANK", "SLURM_PROCID"):
        if name in os.environ:
            return os.environ[name] == "0"
    return all(os.environ.get(name, "0") == "0" for name in ("NODE_RANK", "LOCAL_RANK"))

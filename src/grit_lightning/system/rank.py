"""Which of several processes this is, before there is a trainer to ask."""

import os


def is_first_process() -> bool:
    """Whether this process writes for all: true unless a launcher (torchrun, SLURM, Lightning) says otherwise."""
    for name in ("RANK", "SLURM_PROCID"):
        if name in os.environ:
            return os.environ[name] == "0"
    return all(os.environ.get(name, "0") == "0" for name in ("NODE_RANK", "LOCAL_RANK"))

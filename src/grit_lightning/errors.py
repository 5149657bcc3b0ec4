"""Errors a user can cause. Each is one clear sentence; the command line prints it alone and exits 1."""


class UserError(Exception):
    """Something the user can mend: a file, a field, a config value. The message is one sentence."""


class ConfigError(UserError):
    """A config value that cannot be used: names the key, what it holds and what was expected."""


class DataError(UserError):
    """A problem in a data file: names the file, the line and the field.

    Args:
        message: what is wrong and what was expected.
        source: where, as ``file`` or ``file:line``.
    """

    def __init__(self, message: str, source: str) -> None:
        super().__init__(f"{source}: {message}")
        self.source = source


class CheckpointError(UserError):
    """A model folder, checkpoint or run folder that cannot be loaded."""


class JudgeError(UserError):
    """A judge that cannot be asked, or that left too much unscored.

    Within a training step it is raised on all processes, at the same point of the step.
    """

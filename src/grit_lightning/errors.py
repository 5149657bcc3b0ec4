"""Errors that a user can cause. The command line prints the message, without a traceback, and exits with status 1."""


class UserError(Exception):
    """An error that the user can fix, in a file, a field or a config value. The message is one sentence."""


class ConfigError(UserError):
    """An unusable config value. The message names the key, its value and what was expected."""


class DataError(UserError):
    """A problem in a data file. The message names the file, the line and the field.

    Args:
        message: what is wrong and what was expected.
        source: location of the problem, as ``file`` or ``file:line``.
    """

    def __init__(self, message: str, source: str) -> None:
        super().__init__(f"{source}: {message}")
        self.source = source


class CheckpointError(UserError):
    """A model folder, checkpoint or run folder that cannot be loaded."""


class NotFiniteError(UserError):
    """Training that would make weights infinite or NaN. All processes raise it at the same point of a step."""


class EngineError(UserError):
    """An inference engine that cannot be started, has failed, or does not do what is asked of it."""


class StaleEngineError(EngineError):
    """An engine that samples from other weights than the policy's. All processes raise it at the same point."""


class RewardError(UserError):
    """A reward that fails for every completion. All processes raise it at the same point of a step."""


class JudgeError(UserError):
    """A judge that cannot be used, or that left too many answers unscored.

    Within a training step, all processes raise it at the same point of the step.
    """

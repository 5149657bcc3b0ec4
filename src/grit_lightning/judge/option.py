"""The offline judge of questions with options, which reads the option that a free answer names."""

from __future__ import annotations

from grit_lightning.grounding.answers import normalise
from grit_lightning.grounding.option_reading import named_options
from grit_lightning.grounding.options import chosen_option, options_in
from grit_lightning.judge.exact import ExactMatch


class OptionJudge:
    """Scores 1 if an answer names the option that is right, 0 if it names another or none. Needs no server.

    An answer of which it cannot be told which option it names, such as ``A or B``, has no score. The option is read
    from the answer as it is, by its letter or its text (``grounding.option_reading``), never by its position. Questions
    without options are scored as by :class:`ExactMatch`.
    """

    name = "option"
    reads_options = True

    def __call__(self, question: str, reference: str, answer: str) -> float | None:
        """Return 1 or 0, or ``None`` if the answer is ambiguous.

        Args:
            question: the question with its options, as :func:`~grit_lightning.grounding.options.with_options` writes.
            reference: the right option, by its text or its letter.
            answer: the answer.
        """
        options = options_in(question)
        right = normalise(chosen_option(reference, options))
        if right not in map(normalise, options):
            return ExactMatch()(question, reference, answer)
        found = named_options(answer, options)
        if len(found) > 1:
            return None
        return float(any(normalise(options[index]) == right for index in found))

"""Tests of the ends of completions and their reasons."""

from __future__ import annotations

import pytest
import torch

from grit_lightning.rollout.stopping import StopAutomaton, stop_automaton, token_bytes


def fed(automaton: StopAutomaton, rows: list[list[int]], limit: int) -> tuple[list[str], list[int]]:
    """Feed completions token by token, as decoding does; return reasons and lengths."""
    states, lengths = automaton.start(len(rows), torch.device("cpu")), [0] * len(rows)
    for place in range(limit):
        tokens = [row[place] if place < len(row) else 0 for row in rows]
        lengths = [n + (not over) for n, over in zip(lengths, automaton.over(states).tolist(), strict=True)]
        states = automaton.next(states, torch.tensor(tokens))
    return automaton.reasons(states.tolist()), lengths


def written(backbone, texts: list[str], limit: int, stop: str = "</answer>") -> tuple[list[str], list[int]]:
    rows = [backbone.tokenizer(text)["input_ids"] for text in texts]
    return fed(stop_automaton(backbone, stop, len(backbone.tokenizer) + 3), rows, limit)


def test_finish_reasons_and_lengths_by_hand(backbone) -> None:
    count = lambda text: len(backbone.tokenizer(text)["input_ids"])  # noqa: E731
    texts = [
        "<answer> 2 </answer>",
        "no<|im_end|>",
        "<answer> 2 </answer><answer> 3 </answer>",
        "goes on and on and on and on and on and on and on and on and on and on and on and on and on and on and on",
        "<|im_end|>",
    ]
    reasons, lengths = written(backbone, texts, limit=25)
    assert reasons == ["stop", "eos", "stop", "length", "eos"]
    assert lengths == [count(texts[0]), count(texts[1]), count("<answer> 2 </answer>"), 25, 1]


def test_a_stop_text_that_ends_inside_a_token_is_found(backbone) -> None:
    tokens = backbone.tokenizer.tokenize("a blue circle and more")
    assert tokens[1] == "Ġblue", "one token, which goes on after the stop text"
    reasons, lengths = written(backbone, ["a blue circle and more", "a red circle"], limit=4, stop="bl")
    assert reasons == ["stop", "length"]
    assert lengths == [2, 4]


TOKENS = [b"", b"a", b"b", b"ab", b"ba", b"aab", b"bab", b"xabxaab", b"abaabx", b"\xc3", b"\xa9", b"x"]


@pytest.mark.parametrize("stop", ["a", "ab", "aab", "abab", "abaab", "bab", "aa", "é", "éa"])
def test_random_tokens_end_where_a_search_of_the_text_finds_the_stop_text(stop: str) -> None:
    automaton = StopAutomaton(TOKENS, stop.encode(), eos=[], vocabulary=len(TOKENS) + 2)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(len(TOKENS) + 2, (500, 12), generator=generator).tolist()
    expected = []
    for row in rows:
        texts = [b"".join(TOKENS[token] for token in row[:count] if token < len(TOKENS)) for count in range(1, 13)]
        expected.append(next((count for count, text in enumerate(texts, 1) if stop.encode() in text), 0))
    reasons, lengths = fed(automaton, rows, limit=12)
    assert [length if reason == "stop" else 0 for reason, length in zip(reasons, lengths, strict=True)] == expected
    assert sum(map(bool, expected)) > 0 or stop == "éa"


def test_an_end_token_ends_only_what_has_not_stopped() -> None:
    automaton = StopAutomaton([b"a", b"b", b"<end>"], b"ab", eos=[2], vocabulary=3)
    assert fed(automaton, [[0, 1, 2], [0, 2, 1], [2, 0, 1], [0, 0, 0]], 3) == (
        ["stop", "eos", "eos", "length"],
        [2, 2, 1, 3],
    )


def test_bytes_of_tokens_are_those_of_their_text(backbone) -> None:
    tokens = token_bytes(backbone.tokenizer)
    for text in ("<answer> 2 </answer>", "a naïve blue circle", "日本", "<|im_start|>user"):
        ids = backbone.tokenizer(text)["input_ids"]
        assert b"".join(tokens[id_] for id_ in ids).decode() == text


def test_the_automaton_is_built_once(backbone) -> None:
    assert stop_automaton(backbone, "</answer>", 600) is stop_automaton(backbone, "</answer>", 600)


def test_the_ends_of_completions_decoded_elsewhere_are_those_of_decoding(backbone) -> None:
    texts = [
        "<answer> 2 </answer>",
        "no<|im_end|>",
        "<answer> 2 </answer><answer> 3 </answer>",
        "goes on",
        "<|im_end|> and",
    ]
    rows = [backbone.tokenizer(text)["input_ids"] for text in texts]
    automaton = stop_automaton(backbone, "</answer>", len(backbone.tokenizer) + 3)
    alone = [fed(automaton, [row], len(row)) for row in rows]
    assert automaton.find(rows, torch.device("cpu")) == [(lengths[0], reasons[0]) for reasons, lengths in alone]
    assert automaton.find([[]], torch.device("cpu")) == [(0, "length")]

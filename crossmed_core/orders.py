"""Option-order sensitivity: an item asked in every cyclic order of its options.

In k cyclic orders each option stands once at each letter, so averaging an option's probability over them takes a
model's preference for letters or places out of the answer (CircularEval asks the same orders and demands that all be
right; selection bias of vision-language models: arXiv 2509.16805). What the orders disagree on is reported: the flip
rate, and how often each letter was chosen, which without a preference would be equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from crossmed_core.answers import choose
from crossmed_core.types import LETTERS, Item, Prediction


def rotated(item: Item, order: int) -> Item:
    """Return an item with its options moved `order` places towards the front, the first ones to the end.

    Where options are regions lettered on the image, the letters move instead: the texts name letters.
    """
    if order == 0 or not item.options:
        return item
    assert item.answer is not None
    size = len(item.options)
    turn = order % size
    answer = (item.answer - turn) % size
    candidates = item.candidates[turn:] + item.candidates[:turn]
    if item.image.marks:
        marks = item.image.marks[turn:] + item.image.marks[:turn]
        return replace(
            item,
            answer=answer,
            label=item.options[answer],
            candidates=candidates,
            image=replace(item.image, marks=marks),
        )
    return replace(item, options=item.options[turn:] + item.options[:turn], answer=answer, candidates=candidates)


def asked_orders(item: Item, orders: int) -> range:
    """Return the orders in which an item is asked: at most as many as it has options; a mask item is asked once."""
    return range(max(1, min(orders, len(item.options))))


def combined(item: Item, answers: Mapping[int, Prediction], *, seed: int) -> Prediction:
    """Make one answer of those to an item's cyclic orders.

    Args:
        item: The item in its own order.
        answers: Order -> the sound answer to `rotated(item, order)`.
        seed: Seed of the coin that decides ties.

    Returns:
        The option with the highest mean probability, where every answer gives probabilities; else the one chosen most
        often. Orders without an answer are left out; if none has one, the first failure.
    """
    sound = {order: one for order, one in answers.items() if one.scored}
    if not sound:
        return answers[min(answers)]
    size = len(item.options)
    totals = [0.0] * size
    probabilities = all(one.option_scores is not None for one in sound.values())
    for order, one in sound.items():
        if probabilities:
            assert one.option_scores is not None
            for place, value in enumerate(one.option_scores):
                totals[(place + order) % size] += value / len(sound)
        else:
            totals[chosen(item, order, one)] += 1 / len(sound)
    # The options' texts name the coin: without marks they are those of the item in every order.
    answer = choose(item, totals, seed=seed)
    if all(one.guess for one in sound.values()):
        answer = replace(answer, guess=True)
    masses = [one.letter_mass for one in sound.values() if one.letter_mass is not None]
    if masses:
        answer = replace(answer, letter_mass=sum(masses) / len(masses))
    return answer if probabilities else replace(answer, option_scores=None)


def chosen(item: Item, order: int, answer: Prediction) -> int:
    """Return the chosen option's place in the item's own order."""
    assert answer.option is not None
    return (answer.option + order) % len(item.options)


def row(item: Item, order: int, answer: Prediction) -> dict[str, object]:
    """Describe one answer for orders.jsonl: letter as shown, option as in the item's own order."""
    if not answer.scored or answer.option is None:
        return {"item": item.id, "order": order, "error": answer.error}
    return {
        "item": item.id,
        "order": order,
        "letter": LETTERS[answer.option],
        "option": chosen(item, order, answer),
        "option_scores": list(answer.option_scores) if answer.option_scores is not None else None,
        "guess": answer.guess,
    }


def flipped(options: Sequence[int]) -> bool:
    """Whether the answers to an item's orders name more than one option."""
    return len(set(options)) > 1

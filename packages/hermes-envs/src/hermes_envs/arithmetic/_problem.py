"""Word problems: a story, the expression that it tells, and its value.

A story is a chain of steps about one quantity. Every step is a sentence and an operation on the running total, so a
problem's value is exact by construction and any number of steps reads naturally.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

__all__ = ["Problem", "make_problem"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One word problem.

    Attributes:
        text: The story and its question.
        expression: The same in integer arithmetic, as POSIX shells, Python and C read it.
        answer: Its value.
    """

    text: str
    expression: str
    answer: int


@dataclass(frozen=True, slots=True)
class _Scene:
    """Who has what, and how it grows and shrinks; `{n}` is the step's number."""

    opening: str
    more: tuple[str, ...]
    fewer: tuple[str, ...]
    times: tuple[str, ...]
    shared: tuple[str, ...]
    question: str


_SCENES = (
    _Scene(
        opening="A library starts the year with {n} books.",
        more=("A school donates {n} books.", "It buys {n} new books.", "Readers return {n} books that were lost."),
        fewer=("It sells {n} old books.", "{n} books are damaged by water.", "It lends {n} books to a museum."),
        times=("A merger with other branches makes the collection {n} times as large.",),
        shared=("The collection is split evenly among {n} branches, and the story follows one of them.",),
        question="How many books are there in the end?",
    ),
    _Scene(
        opening="An orchard's first harvest is {n} apples.",
        more=("A second field adds {n} apples.", "Volunteers pick {n} apples more."),
        fewer=("The birds take {n} apples.", "{n} apples are pressed into juice.", "{n} apples turn out to be rotten."),
        times=("The late harvest multiplies the stock by {n}.",),
        shared=("The apples are packed evenly onto {n} trucks; from here on, count one truck's load.",),
        question="How many apples are left?",
    ),
    _Scene(
        opening="A train leaves the depot with {n} passengers.",
        more=("At the next stop {n} people get on.", "A delayed train's {n} passengers come aboard."),
        fewer=("At the next stop {n} people get off.", "{n} passengers change to a bus."),
        times=("A festival makes the train {n} times as full.",),
        shared=("The passengers are spread evenly over {n} carriages; follow one carriage.",),
        question="How many passengers are on board now?",
    ),
    _Scene(
        opening="A game begins with a treasury of {n} coins.",
        more=("A quest is worth {n} coins.", "A merchant pays {n} coins of debt."),
        fewer=("A new bridge costs {n} coins.", "Thieves steal {n} coins."),
        times=("A lucky card multiplies the treasury by {n}.",),
        shared=("The treasury is divided evenly among {n} players; follow one player's share.",),
        question="How many coins are there at last?",
    ),
)


def make_problem(rng: random.Random, *, steps: int, max_number: int) -> Problem:
    """Make up one problem.

    Args:
        rng: Decides everything; the same state gives the same problem.
        steps: Operations after the opening.
        max_number: Largest number in the text.

    Returns:
        A problem whose value never goes below zero on the way, and whose divisions are exact.
    """
    scene = rng.choice(_SCENES)
    total = rng.randint(max_number // 2, max_number)
    sentences = [scene.opening.format(n=total)]
    expression = str(total)
    for _ in range(steps):
        sentence, operator, n, total = _step(rng, scene, total, max_number)
        sentences.append(sentence.format(n=n))
        expression = f"({expression}) {operator} {n}"
    return Problem(" ".join((*sentences, scene.question)), expression, total)


def _step(rng: random.Random, scene: _Scene, total: int, max_number: int) -> tuple[str, str, int, int]:
    """One operation that the running total allows: its sentence, operator, number, and the new total."""
    divisors = [n for n in range(2, min(10, max_number + 1)) if total and total % n == 0]
    choices = ["+", "*"] + (["-"] if total > 1 else []) + (["/"] if divisors else [])
    operator = rng.choice(choices)
    if operator == "+":
        n = rng.randint(2, max_number)
        return rng.choice(scene.more), operator, n, total + n
    if operator == "-":
        n = rng.randint(1, min(total - 1, max_number))
        return rng.choice(scene.fewer), operator, n, total - n
    if operator == "*":
        n = rng.randint(2, min(10, max_number))
        return rng.choice(scene.times), operator, n, total * n
    n = rng.choice(divisors)
    return rng.choice(scene.shared), operator, n, total // n

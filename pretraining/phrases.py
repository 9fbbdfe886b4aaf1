"""Phrases by chance, as people ask and claim, about words of English at large and of biomedical text.

A teacher says what any text means, so what it is asked about may be made up: the phrases hold the words that
biomedical articles hardly have, symbols that they have seldom, and every kind of short question and claim,
so that a student learns those, too.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from cmbert_retrieval.finetuning.telegrams import FUNCTION_WORDS

SEED = 7
COMMON = 30_000
"""Words of English at large, the most frequent ones, that are all equally likely."""

_TOPICS, _SYMBOLS = 4, 3
"""How often a slot is filled with them, beside the weights of the pools that are given."""

_SHAPES = """
    A | A | A | A B | A B | A B | A and B | A or B | A of B | A in B | A for B | A with B | A from B
    A by B | the A of B | a A without B | A versus B | A: B and C | A B C | A, B, C | A B C D | A B in C
    A with B and C | what is A? | what is A made of? | what are A? | what causes A? | what helps with A?
    who needs A? | which A is best for B? | when should A be taken? | where does A come from?
    why do A B? | why is A B? | how does A work? | how does A affect B? | how to treat A
    how to avoid A | how to get A with B | how much A is too much? | how long does A last?
    how many A have B? | is A safe? | is A good for B? | is A a B? | is there any A in B?
    are A worth it? | are A bad for B? | can A prevent B? | can A be B? | do A need B? | does A cause B?
    does A help with B? | should A be B? | the best A for B | the truth about A | the problem with A
    the history of A | tips for A | guide to A | a day of A | more A | less A | A update | A explained
    A on a budget | A myths | benefits of A | dangers of A | side effects of A | signs of A | types of A
    a review of A | effects of A on B | effect of A in B | role of A in B | risk of A in B
    A as a B of C | A among B with C | A after B | A before B | A during B | A and risk of B
    comparison of A and B in C | prevalence of A in B | treatment of A with B | A for the B of C
    A reduces B. | A increases B in C. | A lowers the risk of B. | A does not affect B.
    A has no effect on B in C. | A is associated with B. | A is not associated with B in C.
    A is required for B. | A is necessary for B. | A inhibits B by C. | A promotes B of C.
    A activates B through C. | A induces B in C. | A binds to B. | A regulates the B of C. | A causes B.
    A prevents B of C. | A leads to lower B. | A improves B more than C. | A predicts B.
    A protects against B. | A lack B. | A with B are more likely to have C.
    the A of B is higher than that of C. | most A are B. | there is no link between A and B.
    A is rare in B.
"""

_SLOT = re.compile(r"\b[ABCD]\b")
_WORD = re.compile(r"[^\W\d_][\w-]*[^\W_]")
_SYMBOL = re.compile(r"(?=\S*\d|\S*[A-Z]\S*[A-Z])[A-Za-z][\w'/+-]*[\w+]")
"""A word with a digit or several capitals, as the names of genes, proteins and substances have them."""

_LONGEST_SYMBOL = 12

_MOST_WORDS = 3
"""Of a topic from a text."""


def phrases(texts: Iterable[str], pools: Sequence[tuple[float, Sequence[str]]], count: int) -> Iterator[str]:
    """Yield ``count`` phrases, the same ones each time.

    Args:
        texts: biomedical ones. One topic of each, and the symbols that come more than once, are what the
            phrases are about, beside the pools.
        pools: weights, and words or names of which all are equally likely.
        count: how many.
    """
    draw = random.Random(SEED)
    shapes = [shape.strip() for line in _SHAPES.strip().splitlines() for shape in line.split("|")]
    topics: list[str] = []
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(_SYMBOL.findall(text))
        if topic := _topic(text, draw):
            topics.append(topic)
    symbols = sorted(word for word, count in counts.items() if count > 1 and len(word) <= _LONGEST_SYMBOL)
    filling = [each for each in (*pools, (_TOPICS, topics), (_SYMBOLS, symbols)) if each[1]]
    weights, kinds = [weight for weight, _ in filling], [pool for _, pool in filling]

    def filled(_: re.Match[str]) -> str:
        (pool,) = draw.choices(kinds, weights)
        return draw.choice(pool)

    for _ in range(count):
        yield _SLOT.sub(filled, draw.choice(shapes))


def common_words(texts: Iterable[str]) -> list[str]:
    """Return the words that most of some texts have, but for function words."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for word in text.lower().split() if word.isalpha() and len(word) > 2)
    words = [word for word in counts if word not in FUNCTION_WORDS]
    return sorted(words, key=lambda word: (-counts[word], word))[:COMMON]


def _topic(text: str, draw: random.Random) -> str:
    """Return some neighbouring words of a text, of which none is a function word."""
    words = _WORD.findall(text)
    if not words:
        return ""
    at = draw.randrange(len(words))
    topic: list[str] = []
    for word in words[at : at + draw.randint(1, _MOST_WORDS)]:
        if word.lower() in FUNCTION_WORDS:
            break
        topic.append(word)
    return " ".join(topic)

"""Texts as keywords and hasty notes are: in lower case, without function words and punctuation."""

from __future__ import annotations

from cmbert_retrieval.pretraining.words import lower_words

FUNCTION_WORDS = frozenset(
    """
    a about above according across after again against all almost alone along already also although always
    among an and another any anyone anything are aren around as at be became because become becomes been
    before behind being below beside besides between beyond both but by can cannot could couldn despite did
    didn do does doesn doing don done down due during each either else enough even ever every few first for
    from further furthermore get given had hadn has hasn have haven having he hence her here hers herself him
    himself his how however i if in indeed instead into is isn it its itself just last least less like made
    make many may me might mightn more moreover most mostly much must mustn my myself namely need needn
    neither never nevertheless next no nobody none nor not nothing now of off often on once one only onto or
    other others otherwise our ours ourselves out over own per perhaps please quite rather re regarding
    respectively s same second several shall shan she should shouldn since so some somehow someone something
    sometimes still such t than that the their theirs them themselves then there thereby therefore these they
    third this those though three through throughout thus to together too toward towards two under unless
    until up upon us using various very via vs was wasn we well were weren what whatever when where whereas
    whereby wherein whether which while who whoever whole whom whose why will with within without won would
    wouldn yet you your yours yourself yourselves
    """.split()
)


def telling_words(text: str) -> list[str]:
    """Return the words of a text that say something, in lower case."""
    return [word for word in lower_words(text) if word not in FUNCTION_WORDS]


def telegram(text: str) -> str:
    """Return the words of a text that say something, in lower case, with a space between two."""
    return " ".join(telling_words(text))

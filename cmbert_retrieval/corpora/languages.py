"""Names of languages, as PubMed has them: three letters, those of libraries where there are two sets."""

from __future__ import annotations

import re

_TWO_LETTERS = dict(
    pair.split(":")
    for pair in (
        "af:afr am:amh ar:ara az:aze be:bel bg:bul bn:ben bs:bos ca:cat cs:cze cy:wel da:dan de:ger el:gre "
        "en:eng eo:epo es:spa et:est eu:baq fa:per fi:fin fr:fre ga:gle gd:gla gl:glg he:heb hi:hin hr:hrv "
        "hu:hun hy:arm id:ind is:ice it:ita ja:jpn ka:geo kk:kaz ko:kor la:lat lt:lit lv:lav mk:mac ml:mal "
        "mn:mon ms:may nb:nor ne:nep nl:dut nn:nor no:nor pl:pol ps:pus pt:por ro:rum ru:rus sa:san si:sin "
        "sk:slo sl:slv sq:alb sr:srp sv:swe sw:swa ta:tam th:tha tl:tgl tr:tur uk:ukr ur:urd uz:uzb vi:vie "
        "zh:chi"
    ).split()
)
_TERMINOLOGICAL = {
    "bod": "tib", "ces": "cze", "cym": "wel", "deu": "ger", "ell": "gre", "eus": "baq", "fas": "per",
    "fra": "fre", "hye": "arm", "isl": "ice", "kat": "geo", "mkd": "mac", "mri": "mao", "msa": "may",
    "mya": "bur", "nld": "dut", "ron": "rum", "slk": "slo", "sqi": "alb", "zho": "chi",
}  # fmt: skip
_TAG = re.compile(r"([a-z]{2,3})(?:[-_][a-z0-9]{1,8})*", re.IGNORECASE)


def language_code(tag: str) -> str:
    """Return "eng" for "en", "EN-gb" and "eng"; a language that is not known here as it is; "" for no tag.

    Source:
        ISO 639-2 (bibliographic codes), https://www.loc.gov/standards/iso639-2/; PubMed's element
        ``Language`` has them.
    """
    found = _TAG.fullmatch(tag.strip())
    if not found:
        return ""
    code = found[1].lower()
    return _TERMINOLOGICAL.get(code, _TWO_LETTERS.get(code, code))

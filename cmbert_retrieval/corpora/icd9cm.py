"""ICD-9-CM as CMS left it (version 32): code titles, with what stands for each code in ICD-10."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cmbert_retrieval.corpora.base import Source, logger
from cmbert_retrieval.corpora.code_documents import clean, code_document
from cmbert_retrieval.corpora.code_files import CodeFilesCorpus, Problem, text_lines
from cmbert_retrieval.corpora.code_names import entry_texts
from cmbert_retrieval.corpora.files import existing, file_source
from cmbert_retrieval.corpora.gems import GemRow, gem_rows
from cmbert_retrieval.corpora.lay import VOCABULARY
from cmbert_retrieval.corpora.order_files import dotted
from cmbert_retrieval.errors import CorpusError
from cmbert_retrieval.types import Document
from cmbert_retrieval.wording import plural

_DIAGNOSIS = re.compile(r"[0-9]{3,5}|E[0-9]{3,4}|V[0-9]{2,4}")
_PROCEDURE = re.compile(r"[0-9]{3,4}")
_TITLES, _SHORT_TITLES = ("*desc_long_dx*", "*desc_long_sg*"), ("*desc_short_dx*", "*desc_short_sg*")
_GEMS = ("*i9gem.txt*", "*gem_i9pcs.txt*")

# Last category of a chapter -> its number and title.
_DISEASES = (
    (139, "1", "Infectious and parasitic diseases"),
    (239, "2", "Neoplasms"),
    (279, "3", "Endocrine, nutritional and metabolic diseases, and immunity disorders"),
    (289, "4", "Diseases of the blood and blood-forming organs"),
    (319, "5", "Mental disorders"),
    (389, "6", "Diseases of the nervous system and sense organs"),
    (459, "7", "Diseases of the circulatory system"),
    (519, "8", "Diseases of the respiratory system"),
    (579, "9", "Diseases of the digestive system"),
    (629, "10", "Diseases of the genitourinary system"),
    (679, "11", "Complications of pregnancy, childbirth, and the puerperium"),
    (709, "12", "Diseases of the skin and subcutaneous tissue"),
    (739, "13", "Diseases of the musculoskeletal system and connective tissue"),
    (759, "14", "Congenital anomalies"),
    (779, "15", "Certain conditions originating in the perinatal period"),
    (799, "16", "Symptoms, signs, and ill-defined conditions"),
    (999, "17", "Injury and poisoning"),
)
_OPERATIONS = (
    (0, "0", "Procedures and interventions, not elsewhere classified"),
    (5, "1", "Operations on the nervous system"),
    (7, "2", "Operations on the endocrine system"),
    (16, "3", "Operations on the eye"),
    (17, "3A", "Other miscellaneous diagnostic and therapeutic procedures"),
    (20, "4", "Operations on the ear"),
    (29, "5", "Operations on the nose, mouth, and pharynx"),
    (34, "6", "Operations on the respiratory system"),
    (39, "7", "Operations on the cardiovascular system"),
    (41, "8", "Operations on the hemic and lymphatic system"),
    (54, "9", "Operations on the digestive system"),
    (59, "10", "Operations on the urinary system"),
    (64, "11", "Operations on the male genital organs"),
    (71, "12", "Operations on the female genital organs"),
    (75, "13", "Obstetrical procedures"),
    (84, "14", "Operations on the musculoskeletal system"),
    (86, "15", "Operations on the integumentary system"),
    (99, "16", "Miscellaneous diagnostic and therapeutic procedures"),
)


class Icd9cmCorpus(CodeFilesCorpus):
    """The diagnoses and procedures of ICD-9-CM, in the order of their files.

    CMS ships titles of complete codes only, so nothing stands above them; ``category`` in the metadata is the
    part before the dot. ``mappings`` in the metadata is what the GEMs say.
    """

    reader = "icd9cm"
    expected = "titles of ICD-9-CM (CMS32_DESC_LONG_DX.txt, CMS32_DESC_LONG_SG.txt), or the folder with them"

    def __init__(self, path: str | Path, *, gem: str = "", release: str = "32") -> None:
        """Find the files; nothing of them is read yet.

        Args:
            path: a file of titles, or a folder with those of diagnoses, procedures or both. In a folder,
                short titles and GEM files (``2018_I9gem.txt``, ``gem_i9pcs.txt``) are taken, too.
            gem: a GEM file from ICD-9-CM to ICD-10, or a folder with GEM files.
            release: the release as its publisher names it.

        Raises:
            CorpusError: there is no such file, or no titles in the folder.
        """
        given = existing(path)
        folder = given if given.is_dir() else None
        self._titles = _found(folder, _TITLES) if folder else [given]
        if not self._titles:
            raise CorpusError(f"{path}: no titles of ICD-9-CM in this folder; expected {self.expected}")
        super().__init__(self._titles[0], release=release)
        self._short_titles = _found(folder, _SHORT_TITLES) if folder else []
        gems = existing(gem) if gem else folder
        self._gems = _found(gems, _GEMS) if gems and gems.is_dir() else [gems] if gems else []
        if gem and not self._gems:
            raise CorpusError(f"{gem}: no GEM file in this folder; expected 2018_I9gem.txt or gem_i9pcs.txt")

    def sources(self) -> list[Source]:
        """Return the files with their checksums, and the vocabulary that adds what people call things."""
        return [*super().sources(), file_source(VOCABULARY, str(VOCABULARY))]

    def _paths(self) -> list[Path]:
        return [*self._titles, *self._short_titles, *self._gems]

    def _items(self) -> Iterator[Document | Problem]:
        mappings: dict[str, list[GemRow]] = {}
        for path in self._gems:
            for row in gem_rows(path):
                if isinstance(row, Problem):
                    yield row
                else:
                    is_procedure = "pcs" in path.name.lower()
                    mappings.setdefault(dotted_icd9(row.source, is_procedure=is_procedure), []).append(row)
        short = {}
        for path in self._short_titles:
            for title in _titles(path):
                if isinstance(title, Problem):
                    yield title
                else:
                    short[title[0]] = title[1]
        seen: Counter[str] = Counter()
        for title in itertools.chain.from_iterable(map(_titles, self._titles)):
            if isinstance(title, Problem):
                yield title
                continue
            code, text, is_procedure, where = title
            seen[code] += 1
            if seen[code] > 1:
                yield Problem(where, "this code stands twice", code)
            else:
                yield self._document(code, text, is_procedure, short.get(code, ""), mappings.get(code, []))
        if unknown := len(mappings.keys() - seen.keys()):
            logger.warning(
                "%s: mappings of %s without a title; left out", self.path.name, plural(unknown, "code")
            )

    def _document(
        self, code: str, title: str, is_procedure: bool, short: str, rows: list[GemRow]
    ) -> Document:
        number, chapter = _chapter(code, is_procedure)
        facts: dict[str, Any] = {
            "category": code.partition(".")[0],
            "names": {"long": [title], "short": [short] if short else []},
        }
        if rows:
            facts["mappings"] = [_mapping(row, is_procedure) for row in rows]
        return code_document(
            code,
            title,
            {
                "system": "icd9cm",
                "license": "public domain",
                "release": self._release,
                "chapter": number,
                "chapter_title": chapter,
                "block": "",
                "block_title": "",
            },
            kind="procedure" if is_procedure else "code",
            entries=entry_texts([title]),
            billable=True,
            facts=facts,
        )


def dotted_icd9(code: str, *, is_procedure: bool = False) -> str:
    """Return a code of ICD-9-CM with its dot: ``0010`` is 001.0, ``E0000`` E000.0, of procedures 00.10."""
    before = 2 if is_procedure else 4 if code.startswith("E") else 3
    return f"{code[:before]}.{code[before:]}" if len(code) > before else code


def _titles(path: Path) -> Iterator[tuple[str, str, bool, str] | Problem]:
    """Yield code, title, whether it is a procedure, and where it stands.

    Titles of diagnoses begin in the seventh column, behind five for the code; of procedures in the sixth.
    """
    for number, text, problem in text_lines(path):
        if not problem and not text.strip():
            continue
        where = f"{path.name}:{number}"
        is_procedure = text[4:5] == " " and text[5:6] not in ("", " ")
        code = (text[:4] if is_procedure else text[:5]).rstrip()
        title = clean(text[5 if is_procedure else 6 :])
        pattern = _PROCEDURE if is_procedure else _DIAGNOSIS
        if problem or not (pattern.fullmatch(code) and title and (is_procedure or text[5:6] == " ")):
            yield Problem(where, problem or "no code of ICD-9-CM with its title in the columns behind it")
        else:
            yield dotted_icd9(code, is_procedure=is_procedure), title, is_procedure, where


def _mapping(row: GemRow, is_procedure: bool) -> dict[str, Any]:
    if row.no_map:
        return {"no_map": True}
    return {
        "code": row.target if is_procedure else dotted(row.target),
        "system": "icd10pcs" if is_procedure else "icd10cm",
        "approximate": row.approximate,
        "combination": row.combination,
        "scenario": row.scenario,
        "choice_list": row.choice_list,
    }


def _chapter(code: str, is_procedure: bool) -> tuple[str, str]:
    if code[0] == "V":
        return "V", "Factors influencing health status and contact with health services"
    if code[0] == "E":
        return "E", "External causes of injury and poisoning"
    category = int(code.partition(".")[0])
    chapters = _OPERATIONS if is_procedure else _DISEASES
    return next((number, title) for last, number, title in chapters if category <= last)


def _found(folder: Path | None, patterns: tuple[str, ...]) -> list[Path]:
    """Return the files of a folder whose names fit, in the order of the patterns."""
    names = sorted(path for path in folder.iterdir() if path.is_file()) if folder else []
    return [path for pattern in patterns for path in names if Path(path.name.lower()).match(pattern)]

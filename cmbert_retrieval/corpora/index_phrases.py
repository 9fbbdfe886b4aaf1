"""Readable phrases out of the paths of an alphabetic index.

An index says "Abscess > scalp" and "Diabetes > type 2 > with > ketoacidosis"; people say "abscess of scalp"
and "type 2 diabetes with ketoacidosis". The rules are few: what begins with a preposition follows, body parts
follow with "of", everything else goes before the main term.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

from cmbert_retrieval.corpora.code_documents import distinct
from cmbert_retrieval.corpora.code_names import spoken

_PREPOSITIONS = frozenset(
    "after against as at because before between by during following for from in involving of on over through "
    "to under until when while with within without".split()
)
_PREPOSITIONAL = frozenset(
    "affecting arising associated caused causing classified complicating complicated due resulting "
    "secondary".split()
)
_EMPTY_STEPS = frozenset(
    {"specified", "specified type", "specified site", "specified sites", "unspecified", "type", "site"}
)
_SITES = frozenset(
    """abdomen abdominal-wall ankle anus aorta appendix arm artery atrium axilla back bladder blood-vessel
    bone bones bowel brain breast bronchus bursa buttock calf canal cartilage cavity cecum cerebellum
    cervix cheek chest chin clavicle colon conjunctiva cornea cranium diaphragm duct duodenum ear elbow
    epididymis esophagus ethmoid eye eyeball eyelid face fallopian-tube femur fibula finger foot forearm
    forehead gallbladder gland groin gum hand head heart heel hip humerus ileum intestine iris jaw
    jejunum joint kidney knee labium larynx leg lens ligament limb lip liver lobe lung lymph-node
    mandible mastoid maxilla meninges mouth muscle nail nasopharynx neck nerve nipple nose orbit organ
    ovary palate pancreas parathyroid pelvis penis pericardium perineum peritoneum pharynx placenta
    pleura prostate radius rectum retina rib ribs sacrum scalp scapula sclera scrotum shoulder sinus
    skin skull spine spleen sternum stomach tendon testis thigh thorax throat thumb thymus thyroid tibia
    tissue toe tongue tonsil tooth teeth trachea ulna ureter urethra uterus vagina valve vein vertebra
    vulva wall wrist""".split()
)
_TISSUES = frozenset(
    {"skin", "bone", "cartilage", "muscle", "connective tissue", "blood vessel", "nerve", "tendon"}
)
_ADJECTIVE = re.compile(
    r"(male|female|upper|lower|internal|external|metastatic|[a-z-]+(al|ic|ar|ary|ous|oid))", re.I
)
_MAX_BEFORE = 2  # More words before the main term cannot be read.
_CANCER = re.compile(r"(carcinoma|melanoma|sarcoma|lymphoma)$", re.IGNORECASE)
_NEOPLASMS = {
    "malignant primary": "primary malignant neoplasm",
    "malignant secondary": "secondary malignant neoplasm",
    "ca in situ": "carcinoma in situ",
    "benign": "benign neoplasm",
    "uncertain behavior": "neoplasm of uncertain behavior",
    "unspecified behavior": "neoplasm of unspecified behavior",
}
_POISONINGS = {
    "accidental": "accidental poisoning by {}",
    "self-harm": "intentional self-harm by poisoning with {}",
    "assault": "assault by poisoning with {}",
    "undetermined": "poisoning by {} of undetermined intent",
    "adverse effect": "adverse effect of {}",
    "underdosing": "underdosing of {}",
}


def phrases(path: Sequence[str], *, column: str = "") -> list[str]:
    """Return what one would say for a path of an index, the most readable first.

    Args:
        path: the terms from the main one downwards, without their nonessential modifiers.
        column: heading of the column in a table of neoplasms or of drugs; "" in an index.
    """
    steps = [text for step in path if (text := _step(step)) and text.lower() not in _EMPTY_STEPS]
    if not steps:
        return [", ".join(path)] if any(path) else []
    key = column.strip().lower()
    if key in _NEOPLASMS:
        return [_neoplasm(_NEOPLASMS[key], steps[1:], is_malignant=key.startswith("malignant"))]
    if column:
        pattern = next((pattern for word, pattern in _POISONINGS.items() if word in key), "")
        names = map(_lowered, _substances(steps))
        return distinct(pattern.format(name) if pattern else f"{column}: {name}" for name in names)
    return distinct(_readings(steps))


def _readings(steps: list[str]) -> Iterable[str]:
    head, before, after = steps[0], list[str](), list[str]()
    is_open = _ends_open(head)  # "Struck by" waits for what follows
    for step in steps[1:]:
        if is_open or after or _is_prepositional(step) or len(before) == _MAX_BEFORE:
            follows = is_open or _is_prepositional(step)
            after.append(f" {step}" if follows else f", {step}")
            is_open = _ends_open(step)
        else:
            before.append(step)
    tail = "".join(after)
    if before and all(map(_is_site, before)):
        yield f"{head} of {_site(before)}{tail}"
    yield " ".join([*reversed(before), _lowered(head) if before else head]) + tail


def _neoplasm(head: str, steps: list[str], *, is_malignant: bool) -> str:
    sites, after = list[str](), ""
    for step in steps:
        if is_malignant and _CANCER.search(step) and not head.startswith("secondary"):
            head = step
        elif _is_prepositional(step):
            after = f"{after} {step}"
        else:
            sites.append(step)
    if sites and all(map(_is_adjective, sites)):
        return f"{' '.join(reversed(sites))} {head}{after}"
    return f"{head} of {_site(sites)}{after}" if sites else f"{head}{after}"


def _site(steps: list[str]) -> str:
    """Return a body part from the whole to its parts: "wall of abdomen", "spermatic cord", "skin of lip"."""
    text = steps[0]
    for above, step in itertools.pairwise(steps):
        if _is_adjective(step):
            text = f"{step} {text}"
        elif above.lower() in _TISSUES:
            text = f"{text} of {step}"
        else:
            text = f"{step} of {text}"
    return text


def _substances(steps: list[str]) -> Iterable[str]:
    """Yield a name read forwards ("Acetic > acid") and backwards ("Antidepressant > tricyclic")."""
    names = [step for step in steps if not _is_prepositional(step)]
    rest = "".join(f" {step}" for step in steps if _is_prepositional(step))
    yield " ".join(names) + rest
    yield " ".join(map(_lowered, reversed(names))) + rest


def _step(text: str) -> str:
    """Return a step as spoken; of forms of one word ("Abscess, abscessed") the first, of prepositions one."""
    text = spoken(text)
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if len(parts) > 1:
        if all(_is_prepositional(part) for part in parts):
            text = parts[0] if all(map(_is_bare, parts)) else parts[-1]
        elif all(part.lower()[:4] == parts[0].lower()[:4] and " " not in part for part in parts[1:]):
            text = parts[0]
    return text


def _is_prepositional(step: str) -> bool:
    first = step.split(" ", 1)[0].lower()
    return first in _PREPOSITIONS or first in _PREPOSITIONAL


def _is_bare(step: str) -> bool:
    """Tell whether a step is nothing but a preposition, as "with" or "due to"."""
    return all(word in _PREPOSITIONS or word in _PREPOSITIONAL for word in step.lower().split())


def _ends_open(step: str) -> bool:
    """Tell whether a step waits for what follows, as "with", "due to" or "Struck by"."""
    return step.lower().split()[-1] in _PREPOSITIONS


def _is_adjective(step: str) -> bool:
    return bool(_ADJECTIVE.fullmatch(step)) and not _is_site(step)


def _is_site(step: str) -> bool:
    words = step.lower().split()
    return words[-1] in _SITES or words[-1].removesuffix("s") in _SITES or "-".join(words) in _SITES


def _lowered(text: str) -> str:
    """Return a text with a small first letter, unless it begins with an abbreviation."""
    return text[:1].lower() + text[1:] if len(text) > 1 and text[1].islower() else text

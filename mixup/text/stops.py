"""Full stops that end no sentence: of abbreviations, initials, acronyms and numbers.

They are shielded: another character stands in their place, so that patterns that look for the end
of a sentence, and those that may not reach over one, pass by them. The text keeps its length.
"""

from __future__ import annotations

import re

SHIELD = "\ue000"
"""Stands for a full stop that ends no sentence; of the private use area, so that no text has it."""

# Words that open a sentence and are no part of a name: before them even "U.S." ends one.
_OPENER = (
    r"(?:The|This|That|These|Those|Its?|He|His|She|Her|They|Their|We|Our|You|In|On|At|By|For|From|"
    r"As|An|A(?= [a-z])|And|But|Or|However|When|While|Where|After|Before|Since|There|Some|Many|"
    r"Most|Other|Others|Both|Each|All|During|Although|Though|If|Because|Then|Thus|According|Later|"
    r"Today|Until|Under|With|Within|Among|Another|Such|What|Which|Who|How|Write|Give|Name)\b"
)
_ALWAYS = r"Dr|Mr|Mrs|Ms|Messrs|Prof|[ei]\.[ge]|[Cc]f|vs"
_BEFORE_NAMES = (
    r"St|Sts|Ste|Mt|Ft|Gen|Col|Lt|Maj|Capt|Sgt|Cpl|Pvt|Cmdr|Adm|Gov|Sen|Rep|Pres|Rev|Hon|Fr|Supt|"
    r"Jr|Sr|Bros|Inc|Ltd|Co|Mfg|Corp|Univ|Dept|Assn|Ave|Blvd|Rd|Pub|Fig|fig|Vol|vol|Op|op|ed|eds|"
    r"al|etc|approx|est|lit|tr|fl|ca|v|Calif|Conn|Fla|Ga|Ky|Mich|Minn|Okla|Pa|Tenn|Tex|Va|Vt|Wis|"
    r"Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec"
)
_BEFORE_NUMBERS = r"N[Oo]s?|nos?|pp?|[bcdrs]|Ch|ch|Sec|sec|Art|art"
_ACRONYM = r"(?:[A-Z]\.)+[A-Z]|[A-Z]|[a-z]\.(?:[a-z]\.)*[a-z]|Ph\.D|[BM]\.Sc|Lt\.Col|D\.Phil"
_INSIDE = re.compile(r"\.(?=[^\s.!?\"”’')\]])")  # "3.5", "U.S", "Inc.,", "example.org"
_BEFORE = r"(?<![^\s(\[\"“‘'/–—-])"
_ENDS_NONE = re.compile(
    rf"{_BEFORE}(?:(?:{_ALWAYS})(?P<always>\.)(?= *\S)"
    rf"|(?:{_BEFORE_NUMBERS})(?P<numbers>\.)(?= +\d)"
    rf"|(?:{_BEFORE_NAMES}|{_ACRONYM})(?P<names>\.)(?= +(?!{_OPENER})\S))".replace(
        r"\.", rf"[.{SHIELD}]"
    )
)


def shielded(text: str) -> str:
    """The text with ``SHIELD`` for each full stop that ends no sentence; of the same length.

    The last full stop of a line always ends one, and so does that of an abbreviation, an initial
    or an acronym before a word that opens sentences ("in the U.S. The road"), but for titles.
    """
    if "." not in text:
        return text
    return _ENDS_NONE.sub(_shield_last, _INSIDE.sub(SHIELD, text))


def unshielded(text: str) -> str:
    """The text with its full stops again."""
    return text.replace(SHIELD, ".")


def _shield_last(found: re.Match[str]) -> str:
    return f"{found.group()[:-1]}{SHIELD}"

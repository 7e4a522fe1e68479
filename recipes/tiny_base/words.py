"""Where every document's words, names and numbers come from.

Ordinary English words weighted by how common they are, minus the words that the shipped sample
tasks use as content, minus the two public tasks' own labels, minus words nobody wants to read.
"""

# ruff: noqa: SIM905
from __future__ import annotations

import itertools
import random
from functools import lru_cache

from wordfreq import top_n_list, word_frequency

COMMON = 9000  # how far down the frequency list words are taken

# Labels of the public functional-representation task: never a key or a function here.
FORBIDDEN_LABELS = frozenset(
    """inform request give_opinion verify_attribute suggest request_explanation recommend
    request_attribute exp_release_date release_year developer esrb genres player_perspective
    has_multiplayer platforms available_on_steam has_linux_release has_mac_release specifier
    confirm rating name""".split()
)

# Words of grammar: they make the sentences, so they are no content.
GRAMMAR = frozenset(
    """a about above after again against all also am an and any are as at be because been before
    being below between both but by can cannot could did do does doing done down during each else
    ever every few for from further get gets getting give given gives go goes going gone got had
    has have having he her here hers herself him himself his how if in into is it its itself just
    let like made make makes many may me might mine more most much must my myself never no nor not
    of off on once one only or other ought our ours out over own per rather s same she should
    since so some such than that the their theirs them themselves then there these they this
    those though through thus to too toward under until up upon us very via was we were what when
    where which while who whom whose why will with within without would yes yet you your yours
    yourself isn ain aren couldn didn doesn don hadn hasn haven shouldn wasn weren won wouldn ll ve
    re im ill id dont didnt doesnt cant wont ive youre thats lets gonna wanna gotta al et ie eg vs
    etc com www http https mr mrs ms dr st th nd rd""".split()
)

# Beginnings and parts of words that a random sentence would abuse: insults, violence, sex, drugs,
# and the names of faiths, peoples and politicians.
_UNWANTED = (
    "fuck shit bitch cunt nigg fag rape rapist porn sex slut whore dick cock pussy nazi "
    "hitler tits boob penis vagina anal damn ass bastard suicid murder kill terror jihad "
    "molest nude naked incest pedo cum crap piss homo hell drug cocaine racis gay lesbian "
    "obama trump isis heroin jew muslim islam christ allah"
).split()
_UNWANTED_WHOLE = frozenset("ass hell damn crap cum homo anal drug drugs kill kills".split())


@lru_cache(maxsize=1)
def blocked() -> frozenset[str]:
    """Content words and labels of the shipped samples: the base meets them in fine-tuning first."""
    from tuneoff.tasks.samples import functional, sql

    words: set[str] = set()
    for group in (functional.content_words(), functional.ATTRIBUTES, sql.content_words()):
        for word in group:
            words.update(part for part in word.lower().replace("_", " ").split() if part)
    return frozenset(words) - GRAMMAR - sql.GENERIC - functional.GENERIC


def _wanted(word: str) -> bool:
    if not (word.isascii() and word.isalpha() and len(word) > 2):
        return False
    if any(word == bad if bad in _UNWANTED_WHOLE else bad in word for bad in _UNWANTED):
        return False
    return word not in GRAMMAR and word not in blocked() and word not in FORBIDDEN_LABELS


@lru_cache(maxsize=1)
def _lexicon() -> tuple[list[str], list[float]]:
    words = [w for w in top_n_list("en", COMMON) if _wanted(w)]
    weights = [word_frequency(w, "en") ** 0.45 for w in words]
    return words, list(itertools.accumulate(weights))


def word(rng: random.Random) -> str:
    """One content word, common words more often."""
    words, heap = _lexicon()
    return rng.choices(words, cum_weights=heap)[0]


def words(rng: random.Random, count: int) -> list[str]:
    """`count` different content words."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[word(rng)] = None
    return list(found)


_ONSETS = "b c d f g h j k l m n p r s t v w z br ch cl dr fl gr kl kr pl pr sh sk st th tr".split()
_VOWELS = "a e i o u a e i o ai ea ee ia io oo ou".split()
_CODAS = " n r l s t m k d x nd rn st ck th".split(" ")


def invented(rng: random.Random) -> str:
    """A word that does not exist, lower case, two to four syllables."""
    while True:
        parts = [
            rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)
            for _ in range(rng.choice((1, 2, 2, 2, 3)))
        ]
        made = "".join(parts) + (rng.choice("aeiouy") if rng.random() < 0.3 else "")
        if len(made) > 3 and made not in blocked() and made not in FORBIDDEN_LABELS:
            return made


_JOINERS = ("of", "and", "the", "in", "for", "of the")


def name(rng: random.Random) -> str:
    """A proper name: invented or of real words, one to four parts, sometimes a sequel."""
    style = rng.random()
    if style < 0.3:
        made = invented(rng).capitalize()
    elif style < 0.5:
        made = f"{invented(rng).capitalize()} {invented(rng).capitalize()}"
    elif style < 0.65:
        made = f"{word(rng).capitalize()} {invented(rng).capitalize()}"
    elif style < 0.8:
        made = " ".join(w.capitalize() for w in words(rng, rng.choice((1, 2, 2, 3))))
    elif style < 0.9:
        first, second = words(rng, 2)
        made = f"{first.capitalize()} {rng.choice(_JOINERS)} {second.capitalize()}"
    else:
        made = f"The {word(rng).capitalize()}" + (f" {word(rng).capitalize()}" * (style < 0.95))
    extra = rng.random()
    if extra < 0.06:
        made += f" {rng.choice(('II', 'III', 'IV', 'V', '2', '3', str(rng.randint(4, 99))))}"
    elif extra < 0.1:
        made += f": {word(rng).capitalize()} {rng.choice((word, invented))(rng).capitalize()}"
    elif extra < 0.13:
        made = made.replace(" ", "-", 1)
    elif extra < 0.15:
        made = made.upper()
    elif extra < 0.17:
        made += f"'s {word(rng).capitalize()}"
    return made


def person(rng: random.Random) -> str:
    """A first and a last name, both invented."""
    middle = f" {rng.choice('ABCDEFGHJKLMNPRSTVW')}." if rng.random() < 0.1 else ""
    return f"{invented(rng).capitalize()}{middle} {invented(rng).capitalize()}"


_MONTHS = (
    "January February March April May June July August September October November December".split()
)


def number(rng: random.Random) -> str:
    """A number as it stands in a sentence."""
    style = rng.random()
    if style < 0.35:
        return str(rng.randint(0, 99))
    if style < 0.55:
        return str(rng.randint(100, 9999))
    if style < 0.7:
        return str(rng.randint(1900, 2030))
    if style < 0.8:
        return f"{rng.randint(0, 99)}.{rng.randint(0, 99)}"
    return str(rng.randint(1, 99) * rng.choice((10, 100, 1000)))


def figure(rng: random.Random) -> str:
    """A number with its dress: a price, date, time, share, code."""
    style = rng.randrange(9)
    if style == 0:
        return f"${rng.randint(1, 999)}" + rng.choice(("", f".{rng.randint(10, 99)}"))
    if style == 1:
        return f"{_MONTHS[rng.randrange(12)]} {rng.randint(1, 28)}, {rng.randint(1950, 2030)}"
    if style == 2:
        return f"{rng.randint(1950, 2030)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"
    if style == 3:
        return f"{rng.randint(1, 12)}:{rng.randint(0, 59):02d}" + rng.choice(("", " pm", " am"))
    if style == 4:
        return f"{rng.randint(1, 100)}%"
    if style == 5:
        return f"{''.join(rng.choices('ABCDEFGHKLMNPRSTVWXZ', k=2))}-{rng.randint(10, 9999)}"
    if style == 6:
        return f"{rng.randint(1, 20)} {rng.choice(('km', 'kg', 'hours', 'miles', 'days', 'cm'))}"
    if style == 7:
        return f"{rng.randint(1, 30)}{rng.choice(('+', 'th', 'x', 's'))}"
    return f"{rng.choice('ABCDEGKMPRTX')}{rng.choice(('', '+', '-', str(rng.randint(1, 99))))}"


def value(rng: random.Random) -> str:
    """Anything that can stand as a value."""
    style = rng.random()
    if style < 0.25:
        return word(rng)
    if style < 0.4:
        return " ".join(words(rng, 2))
    if style < 0.7:
        return name(rng)
    if style < 0.78:
        return person(rng)
    return number(rng) if style < 0.9 else figure(rng)


def identifier(rng: random.Random, parts: int = 0) -> list[str]:
    """The words of an attribute or column name, one to three; never a forbidden label."""
    while True:
        made = words(rng, parts or rng.choice((1, 1, 1, 2, 2, 3)))
        if "_".join(made) not in FORBIDDEN_LABELS:
            return made

"""Finds keys, mail addresses, phone numbers, cards and IBANs in texts.

The patterns have checksums, for few false alarms; text without a match may still be personal. Every
search takes time linear in the text's length: a run of characters is read once (possessive
repeats), and repeats inside a match are bounded.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

KINDS = ("key", "email", "phone", "card", "iban")
Span = tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class Finding:
    """One match in a text."""

    kind: str
    """One of `KINDS`."""
    start: int
    end: int
    masked: str
    """The value with all but its first and last two characters hidden."""


def find_personal_data(text: str) -> list[Finding]:
    """Return the matches in a text, in order; they do not overlap."""
    findings: list[Finding] = []
    for search in _SEARCHES:
        for kind, start, end in search(text):
            # The neighbours of this match: matches of another kind may lie on both sides.
            place = bisect_left(findings, start, key=_get_start)
            free_before = place == 0 or findings[place - 1].end <= start
            if free_before and (place == len(findings) or end <= findings[place].start):
                findings.insert(place, Finding(kind, start, end, mask_value(text[start:end])))
    return findings


def _get_start(finding: Finding) -> int:
    """Return where a match begins."""
    return finding.start


def redact(text: str, findings: Collection[Finding]) -> str:
    """Return a text with each match replaced by its kind in brackets."""
    pieces, position = [], 0
    for finding in findings:
        pieces += [text[position : finding.start], f"[{finding.kind.upper()}]"]
        position = finding.end
    return "".join(pieces) + text[position:]


def mask_value(value: str) -> str:
    """Return a value with all but its first and last two characters hidden."""
    return f"{value[:2]}…{value[-2:]}"


# --- keys -------------------------------------------------------------------------------------

# The prefix of each kind of key, and its pattern. A text without the prefix is not searched.
# `(?<![\w-])` lets a match begin only at the start of a word, so a long word is tried once.
_BEGIN = r"(?<![A-Za-z0-9_-])"
_KEYS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (beginning, re.compile(_BEGIN + pattern))
    for beginning, pattern in (
        ("sk-", r"sk-[A-Za-z0-9_-]{20,}+"),  # OpenAI, Anthropic, OpenRouter, DeepSeek
        ("k_live_", r"[rs]k_live_[A-Za-z0-9]{16,}+"),  # Stripe
        ("k_test_", r"[rs]k_test_[A-Za-z0-9]{16,}+"),
        ("ghp_", r"ghp_[A-Za-z0-9]{36,}+"),  # GitHub
        ("gho_", r"gho_[A-Za-z0-9]{36,}+"),
        ("ghu_", r"ghu_[A-Za-z0-9]{36,}+"),
        ("ghs_", r"ghs_[A-Za-z0-9]{36,}+"),
        ("ghr_", r"ghr_[A-Za-z0-9]{36,}+"),
        ("github_pat_", r"github_pat_[A-Za-z0-9_]{22,}+"),
        ("glpat-", r"glpat-[A-Za-z0-9_-]{20,}+"),  # GitLab
        ("hf_", r"hf_[A-Za-z0-9]{30,}+"),  # Hugging Face
        ("AKIA", r"AKIA[0-9A-Z]{16}(?![A-Za-z0-9_-])"),  # AWS
        ("ASIA", r"ASIA[0-9A-Z]{16}(?![A-Za-z0-9_-])"),
        ("xox", r"xox[abeoprs]-[A-Za-z0-9-]{10,}+"),  # Slack
        ("AIza", r"AIza[0-9A-Za-z_-]{35}(?![A-Za-z0-9_-])"),  # Google
        ("eyJ", r"eyJ[\w-]{8,}+\.eyJ[\w-]{8,}+(?:\.[\w-]++)?"),  # JSON web tokens
        ("earer", r"[Bb]earer[ \t]{1,4}(?:[A-Za-z0-9_~+/=-]|\.(?=[A-Za-z0-9])){24,}+"),
    )
)
# To its end, or to its last line if the end was cut off.
_PEM_KEY = re.compile(
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----"
    r"(?:(?:[A-Za-z0-9+/=\s\\:,]|-(?!-))*+-----END [A-Z ]{0,30}PRIVATE KEY-----"
    r"|(?:(?:\s|\\n)*+[A-Za-z0-9+/=]{16,}+)*+)"
)
_RUN = re.compile(r"[A-Za-z0-9]{16,}+")


def _find_keys(text: str) -> Iterator[Span]:
    """Yield the keys in a text."""
    if "PRIVATE KEY-----" in text:
        yield from (("key", *match.span()) for match in _PEM_KEY.finditer(text))
    for beginning, pattern in _KEYS:
        if beginning in text:
            for match in pattern.finditer(text):
                if beginning not in ("sk-", "earer") or _is_random(match.group()):
                    yield ("key", *match.span())


def _is_random(word: str) -> bool:
    """Return whether a word holds a run of letters and digits as random keys do."""
    return any(not run.isalpha() and not run.isdigit() for run in _RUN.findall(word))


# --- mail addresses ---------------------------------------------------------------------------

_EMAIL = re.compile(
    r"(?<![\w.%+-])([\w.%+-]{1,64}+)@"
    r"(?:[A-Za-z0-9][A-Za-z0-9-]{0,62}+\.){1,8}([A-Za-z]{2,24}+)(?![\w@-])"
)
# Not addresses: `icon@2x.png` and `git@github.com:…`.
_NO_DOMAINS = frozenset({"png", "jpg", "jpeg", "gif", "svg", "webp"})
_NO_NAMES = frozenset({"git"})


def _find_emails(text: str) -> Iterator[Span]:
    """Yield the mail addresses in a text."""
    if "@" not in text:
        return
    for match in _EMAIL.finditer(text):
        name, end = match.groups()
        if end.lower() not in _NO_DOMAINS and name not in _NO_NAMES:
            yield ("email", *match.span())


# --- numbers ----------------------------------------------------------------------------------

# A run of digits with the usual separators. It begins with a digit, which Python finds fast.
_DIGITS = re.compile(r"[0-9][0-9 ()./-]{6,}+")
_NOT_BEFORE = re.compile(r"[\w.,-]")
MIN_NUMBER_DIGITS = 8
_CARD = re.compile(
    r"(?<!\d)(?:\d{14,19}+"
    r"|\d{4}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?"
    r"|\d{4}([ -])\d{6}\2\d{4,5})(?!\d)"
)
# Visa; Mastercard; American Express; Discover; Diners; JCB; UnionPay: first digits, lengths.
_ISSUERS = re.compile(
    r"4(?:\d{15}|\d{18})"
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"
    r"|3[47]\d{13}"
    r"|(?:6011|65\d\d|64[4-9]\d)\d{12}"
    r"|3(?:0[0-5]|[68]\d)\d{11}"
    r"|35(?:2[89]|[3-8]\d)\d{12}"
    r"|62\d{14,17}"
)
_PHONES = (
    # International: + or 00, and 8 to 15 digits; with 00 they are grouped.
    re.compile(r"\+[1-9](?:[ ()./-]{0,3}\d){7,14}(?!\d)"),
    re.compile(r"(?<![\d+])(?<!\d[ .-])00[1-9]\d{0,2}[ /-](?:[ ()./-]{0,3}\d){6,12}(?!\d)"),
    # North America.
    re.compile(
        r"(?<!\d)(?<!\d[ .-])(?:1[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[ .-])[2-9]\d\d[.-]\d{4}(?!\d)"
    ),
    # France and its like: 06 12 34 56 78.
    re.compile(r"(?<!\d)(?<!\d[ .-])0[1-9](?:([ .-])\d\d)(?:\1\d\d){3}(?!\d)(?![ .-]\d)"),
    # Germany, the United Kingdom and their like: an area code with 0, and a number behind it.
    re.compile(
        r"(?<!\d)(?<!\d[ .-])(?:\(0[1-9]\d{1,4}\) ?|0[1-9]\d{1,4}(?: ?[/-] ?| ))"
        r"\d{3,8}(?:[ -]\d{2,4}){0,2}(?!\d)(?![ .-]\d)"
    ),
)
MIN_PHONE_DIGITS, MAX_PHONE_DIGITS = 10, 12


def _find_numbers(text: str) -> Iterator[Span]:
    """Yield the card and phone numbers in a text."""
    for run in _DIGITS.finditer(text):
        if sum(map(str.isdigit, run.group())) < MIN_NUMBER_DIGITS:
            continue
        start, end = run.span()
        while start and text[start - 1] in "+(" and run.start() - start < 2:
            start -= 1
        for kind, first, last in (
            *_find_cards(text, start, end),
            *_find_phones(text, start, end),
        ):
            begins = not first or not _NOT_BEFORE.match(text[first - 1])
            if begins and not text[last : last + 1].isalnum():
                yield kind, first, last


def _find_cards(text: str, start: int, end: int) -> Iterator[Span]:
    """Yield the card numbers in a part of a text."""
    for match in _CARD.finditer(text, start, end):
        digits = re.sub(r"\D", "", match.group())
        if _ISSUERS.fullmatch(digits) and has_luhn_digit(digits):
            yield ("card", *match.span())


def has_luhn_digit(digits: str) -> bool:
    """Return whether a card number's last digit is the check digit of the others (Luhn)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _find_phones(text: str, start: int, end: int) -> Iterator[Span]:
    """Yield the phone numbers in a part of a text."""
    for place, pattern in enumerate(_PHONES):
        for match in pattern.finditer(text, start, end):
            digits = sum(map(str.isdigit, match.group()))
            if place < len(_PHONES) - 1 or MIN_PHONE_DIGITS <= digits <= MAX_PHONE_DIGITS:
                yield ("phone", *match.span())


# --- IBANs ------------------------------------------------------------------------------------

_IBAN_START = re.compile(r"[A-Z][A-Z]\d\d ?[A-Z0-9]")
# ISO 13616's lengths by country.
_IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FO GL NL", 19: "MK SI", 20: "AT BA EE KZ LT LU XK",
        21: "CH HR LI LV", 22: "BG BH CR DE GB GE IE ME RS", 23: "AE GI IL IQ TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "LY PT", 26: "IS TR",
        27: "BI FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB NI PL SV", 29: "BR EG PS QA UA",
        30: "JO KW MU", 31: "MT SC", 32: "LC", 33: "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip


def _find_ibans(text: str) -> Iterator[Span]:
    """Yield the IBANs in a text."""
    for match in _IBAN_START.finditer(text):
        start = match.start()
        if start and text[start - 1].isalnum():
            continue
        length = _IBAN_LENGTHS.get(text[start : start + 2])
        end = None if length is None else _find_end(text, start, length)
        if end is not None and has_iban_digits(text[start:end].replace(" ", "")):
            yield "iban", start, end


def _find_end(text: str, start: int, length: int) -> int | None:
    """Return where an IBAN of this length ends, single blanks not counted; None if none does."""
    position, count = start, 0
    while count < length:
        character = text[position : position + 1]
        if character == " " and text[position - 1] != " ":
            position += 1
            continue
        if not (character.isascii() and character.isalnum()):
            return None
        count, position = count + 1, position + 1
    return None if text[position : position + 1].isalnum() else position


def has_iban_digits(iban: str) -> bool:
    """Return whether an IBAN's two check digits are right (ISO 7064, modulo 97)."""
    turned = iban[4:] + iban[:4]
    return int("".join(str(int(character, 36)) for character in turned)) % 97 == 1


# In this order: a match excludes later ones at its place, so digits of a card are no phone number.
_SEARCHES: tuple[Callable[[str], Iterator[Span]], ...] = (
    _find_keys,
    _find_ibans,
    _find_numbers,
    _find_emails,
)

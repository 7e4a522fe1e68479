"""Keys, mail addresses, phone numbers, cards and IBANs: what is found, and what is not."""

from __future__ import annotations

import pytest

from tuneoff.imports.personal_data import (
    find_personal_data,
    has_iban_digits,
    has_luhn_digit,
    redact,
)

FOUND = {
    "key": (
        "sk-proj-abcDEF1234567890abcDEF1234567890",
        "ghp_" + "a1" * 18,
        "AKIAIOSFODNN7EXAMPLE",
        "xoxb-123456789012-abcdefghij",
        "AIza" + "x_-Z9" * 7,
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2ln",
        "Bearer abcdefghij1234567890abcdefghij",
        "-----BEGIN PRIVATE KEY-----\\nMIIEowIBAAKCAQEAx+/x=\\nMIIEowIBAAKCAQEAx",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow+/x=\n-----END RSA PRIVATE KEY-----",
    ),
    "email": ("ann.lee+shop@mail.co.uk", "böb@firma.de", "A_1@x-y.museum"),
    # By hand, from the right, each second digit doubled (its digits added): 4111… gives
    # 8 x 1 + 7 x 2 + 8 = 30; 5555 5555 5555 4444 gives 2 x (4 + 8) + 6 x (5 + 1) = 60.
    "card": ("4111 1111 1111 1111", "4111111111111111", "3782 822463 10005", "5555-5555-5555-4444"),
    "iban": ("DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432"),
    "phone": (
        "+49 30 1234567", "+1 (415) 555-2671", "0049 30 1234567", "(555) 234-5678", "415-555-2671",
        "06 12 34 56 78", "030/1234567", "(030) 1234567", "020 7946 0958", "07700 900123",
    ),
}  # fmt: skip
NOT_FOUND = (
    "sk-learn-is-a-long-name-of-no-key", "ask-abcDEF1234567890abcDEF1234567890", "AKIA123",
    "Bearer of the very best news there are",
    "ann at mail.com", "ann@localhost", "icon@2x.png", "git@github.com:tuneoff", "@ann_lee.com",
    "4111 1111 1111 1112", "1234567890123456", "9111111111111111", "0000 0000 0000 0000",
    "DE88 3704 0044 0532 0130 00", "DE89 3704 0044 0532 0130", "XX89370400440532013000",
    "2026-11-30 14:30:00", "192.168.100.200", "3.14159265358", "978-3-16-148410-0", "1790000000",
    "123e4567-e89b-12d3-a456-426614174000", "12 34 56 78", "order 20261130123456",
    "415-555-2671b", "x415-555-2671", "4111111111111111a",
)  # fmt: skip


@pytest.mark.parametrize("kind", FOUND)
def test_values_are_found_whole_and_masked(kind: str) -> None:
    for value in FOUND[kind]:
        for text in (f"Write: {value}, then THE END.", f"({value})", f"It is {value}.", value):
            (found,) = find_personal_data(text)
            assert (found.kind, text[found.start : found.end]) == (kind, value)
            assert found.masked == f"{value[:2]}…{value[-2:]}"
            assert redact(text, [found]) == text.replace(value, f"[{kind.upper()}]")


@pytest.mark.parametrize("text", NOT_FOUND)
def test_what_only_looks_like_it_is_not_found(text: str) -> None:
    assert find_personal_data(f"See {text} there.") == []


def test_check_digits() -> None:
    # 7992739871 with 3: 7+9+9+2+7+3+9+8+7+1, each second one doubled: 67 + 3 = 70.
    assert [last for last in range(10) if has_luhn_digit(f"7992739871{last}")] == [3]
    # 3704 0044 0532 0130 00 with D=13, E=14 and 89 behind: 370400440532013000131489 mod 97 = 1.
    assert 370400440532013000131489 % 97 == 1
    assert has_iban_digits("DE89370400440532013000")
    assert not has_iban_digits("DE98370400440532013000")


def test_places_are_in_order_and_do_not_overlap() -> None:
    text = "+49 30 1234567 a@b.de DE89 3704 0044 0532 0130 00 4111 1111 1111 1111 c@d.de"
    kinds = [finding.kind for finding in find_personal_data(text)]
    assert kinds == ["phone", "email", "iban", "card", "email"]


@pytest.mark.parametrize(
    "piece",
    [
        "a", "1", "1 ", "a@", "a@a.", "sk-", "eyJ", "eyJabcdefgh.", "-----BEGIN PRIVATE KEY-----",
        "+1", "1(", "DE89 ", "01-", "4111 ", "Bearer    ", "555-555-", "ab@cd.ef ", "%.+-", "((+",
    ],
)  # fmt: skip
def test_a_hostile_line_is_walked_through_once(piece: str) -> None:
    """Were the time to grow with the square of the length, this would take minutes or hours."""
    length = 1_000_000 if piece in ("a", "1") else 50_000
    found = find_personal_data(piece * (length // len(piece)) + " x@y.de")
    assert "x@…de" not in [finding.masked for finding in found[:-1]]
    assert found[-1].masked == "x@…de"

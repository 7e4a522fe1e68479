"""Writes `orders.csv`, made-up orders and the record that each should become:
`python examples/data/orders.py > examples/data/orders.csv`. The same rows every time."""

from __future__ import annotations

import csv
import random
import sys

ROWS, SEED = 400, 1
STARTS = ("Mar", "Bel", "Tor", "Lin", "Gar", "Nel", "Hol", "Ros", "Win", "Dal", "Fen", "Kor")
ENDS = ("ton", "wick", "ley", "mann", "etti", "son", "berg", "ova", "dale", "ini")
NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve")
COLOURS = ("red", "blue", "green", "white", "black", "yellow", "brown", "grey")
THINGS = ("lamps", "chairs", "tables", "boxes", "bags", "cups", "plates", "shirts", "books",
          "clocks", "doors", "rugs")  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
ORDERS = (
    "{name} wants {number} {colour} {things} by {day}.",
    "Please send {number} {colour} {things} to {name} before {day}.",
    "On {day} {name} needs {number} {things} in {colour}.",
    "We promised {name} {number} {colour} {things} for {day}.",
    "{number} {things} for {name}, all of them {colour}, to arrive on {day}.",
    "For {day}: {name} asked for {number} {colour} {things}.",
)
RECORD = "{name} | {number} | {colour} | {things} | {day}"


def rows() -> list[tuple[str, str]]:
    """Pairs of an order and its record, all different."""
    rng, found = random.Random(SEED), dict[str, str]()
    while len(found) < ROWS:
        order = {
            "name": rng.choice(STARTS) + rng.choice(ENDS),
            "number": rng.choice(NUMBERS),
            "colour": rng.choice(COLOURS),
            "things": rng.choice(THINGS),
            "day": rng.choice(DAYS),
        }
        text = rng.choice(ORDERS).format(**order)
        found[text[0].upper() + text[1:]] = RECORD.format(**order)
    return list(found.items())


if __name__ == "__main__":
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(("prompt", "completion"))
    table.writerows(rows())

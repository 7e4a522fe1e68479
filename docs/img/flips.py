"""Draws docs/img/flips.svg: eight made-up databases, and what their 256 flips give.

python docs/img/flips.py
"""

from __future__ import annotations

from pathlib import Path

import altair as alt
import numpy as np

from tuneoff.scoring.flips import flip_jointly

QUESTIONS = 25
AHEAD = np.array([4, 3, 3, 2, 2, 1, 1, -1], dtype=float)  # right answers more, by database


def main() -> None:
    flips = flip_jointly(AHEAD[:, None], np.full((len(AHEAD), 1), float(QUESTIONS)))
    found = 100 * AHEAD.sum() / (QUESTIONS * len(AHEAD))
    bars = [{"database": f"database {i + 1}", "answers": a} for i, a in enumerate(AHEAD)]
    sums = [
        {"points": round(float(x), 2), "kind": "as extreme" if abs(x) >= found else "less extreme"}
        for x in 100 * flips.differences[:, 0]
    ]
    left = (
        alt.Chart(alt.Data(values=bars), title="Right answers more than the other model")
        .mark_bar(color="#3b6ea5")
        .encode(
            x=alt.X("answers:Q", title=None, axis=alt.Axis(tickMinStep=1)),
            y=alt.Y("database:N", title=None),
        )
        .properties(width=240, height=200)
    )
    p = flips.p_values()[0]
    right = (
        alt.Chart(
            alt.Data(values=sums),
            title=f"All 256 flips: {p * 256:.0f} are as extreme, p = {p:.3f}",
        )
        .mark_bar()
        .encode(
            x=alt.X("points:Q", bin=alt.Bin(step=1), title="difference in points"),
            y=alt.Y("count():Q", title="flips"),
            color=alt.Color(
                "kind:N",
                title=None,
                scale=alt.Scale(
                    domain=["as extreme", "less extreme"], range=["#c2571a", "#b9c4cf"]
                ),
            ),
        )
        .properties(width=320, height=200)
    )
    chart = (left | right).configure_view(stroke=None).configure(background="white")
    chart.save(Path(__file__).with_suffix(".svg"))


if __name__ == "__main__":
    main()

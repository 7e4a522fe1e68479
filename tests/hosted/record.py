"""Makes `recorded/` anew: the bake-off file there, carried out against a real `tuneoff serve`.

python tests/hosted/record.py
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "server")]

KEPT = ("job.json", "exchanges.jsonl", "predictions.jsonl")


def main() -> None:
    from running import server

    import tuneoff
    from tuneoff.progress import LineProgress

    text = (HERE / "recorded" / "bakeoff.yaml").read_text()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        with server(place / "data") as (port, _):
            (place / "b.yaml").write_text(text.replace("8765", str(port)))
            bakeoff = tuneoff.load(place / "b.yaml")
            tuneoff.run(bakeoff, place / "run", progress=LineProgress())
        for contender in bakeoff.contenders:
            into = HERE / "recorded" / "contenders" / contender.name
            into.mkdir(parents=True, exist_ok=True)
            for name in KEPT:
                made = place / "run" / "contenders" / contender.name / name
                if made.exists():
                    shutil.copy(made, into)


if __name__ == "__main__":
    main()

"""llama.cpp, asked in a process of its own: what ends it (its kernels are another for every
processor) ends no export.

`python -m tuneoff.export.runtime FILE` reads one JSON document (`prompts` of token ids, `texts`,
`ends`, `most` tokens) and writes one: `tokens` and `gaps` of each prompt's greedy answer, and
`cut`, the token ids of each text.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Said:
    """What llama.cpp said. `gaps` are how far the two best tokens were apart, in log-probability,
    at each token of an answer and at its end, which is no token of it."""

    tokens: list[list[int]]
    gaps: list[list[float]]
    cut: list[list[int]]


def ask(
    file: Path,
    prompts: Sequence[Sequence[int]],
    texts: Sequence[str],
    ends: Sequence[int],
    most: int,
) -> Said | str:
    """Has a GGUF file answer; why it did not, if llama.cpp ended or cannot load it.

    Args:
        most: the longest answer, in tokens.
    """
    asked = {"prompts": prompts, "texts": texts, "ends": ends, "most": most}
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(file)],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
    )
    if done.returncode == 0:
        return Said(**json.loads(done.stdout))
    if done.returncode < 0:
        return f"it was ended by signal {-done.returncode}"
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"


def main() -> None:
    """Answers what is asked on stdin."""
    from llama_cpp import GGML_TYPE_F32, Llama

    asked = json.load(sys.stdin)
    runtime = Llama(
        sys.argv[1],
        n_ctx=max(map(len, asked["prompts"]), default=8) + asked["most"],
        # Keys and values as exact as they were when it was scored.
        type_k=GGML_TYPE_F32,
        type_v=GGML_TYPE_F32,
        verbose=False,
    )
    answers = [_greedy(runtime, ids, asked["ends"], asked["most"]) for ids in asked["prompts"]]
    cut = [runtime.tokenize(text.encode(), False, True) for text in asked["texts"]]
    said = {"tokens": [a[0] for a in answers], "gaps": [a[1] for a in answers], "cut": cut}
    print(json.dumps(said))


def _greedy(
    runtime: Any, ids: list[int], ends: list[int], most: int
) -> tuple[list[int], list[float]]:
    import numpy as np
    from llama_cpp import llama_get_logits_ith

    runtime.reset()
    runtime.eval(ids)
    tokens: list[int] = []
    gaps: list[float] = []
    while True:
        pointer = llama_get_logits_ith(runtime.ctx, -1)
        logits = np.ctypeslib.as_array(pointer, shape=(runtime.n_vocab(),))
        second, best = np.argpartition(logits, -2)[-2:]
        gaps.append(float(logits[best] - logits[second]))
        if best in ends or len(tokens) == most:
            return tokens, gaps
        tokens.append(int(best))
        runtime.eval([int(best)])


if __name__ == "__main__":
    main()

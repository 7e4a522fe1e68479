"""Runs llama.cpp in a process of its own, so that its crash does not end the export.

(Its kernels are different for every processor.)

`python -m tuneoff.export.llama_cpp FILE` reads one JSON document: `prompts` (token ids), `texts`,
`ends` and `most` (tokens). It writes one: `tokens` and `gaps` of each prompt's greedy answer, and
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
class LlamaCppOutput:
    """The output of llama.cpp."""

    tokens: list[list[int]]
    gaps: list[list[float]]
    """Difference in log-probability between the two best tokens, at each token of an answer and at
    its end, which is not one of its tokens."""
    cut: list[list[int]]
    """Token ids of each text."""


def run_llama_cpp(
    file: Path,
    prompts: Sequence[Sequence[int]],
    texts: Sequence[str],
    ends: Sequence[int],
    most: int,
) -> LlamaCppOutput | str:
    """Answer prompts with a GGUF file; return why it failed, if llama.cpp ended or cannot load it.

    Args:
        most: maximum length of an answer in tokens.
    """
    request = {"prompts": prompts, "texts": texts, "ends": ends, "most": most}
    process = subprocess.run(
        [sys.executable, "-m", __name__, str(file)],
        input=json.dumps(request),
        capture_output=True,
        text=True,
    )
    if process.returncode == 0:
        return LlamaCppOutput(**json.loads(process.stdout))
    if process.returncode < 0:
        return f"it was ended by signal {-process.returncode}"
    lines = process.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit code {process.returncode}"


def main() -> None:
    """Answer the prompts from stdin."""
    from llama_cpp import GGML_TYPE_F32, Llama

    request = json.load(sys.stdin)
    runtime = Llama(
        sys.argv[1],
        n_ctx=max(map(len, request["prompts"]), default=8) + request["most"],
        # A float32 KV cache, as when the contender was scored.
        type_k=GGML_TYPE_F32,
        type_v=GGML_TYPE_F32,
        verbose=False,
    )
    answers = [
        _answer_greedily(runtime, ids, request["ends"], request["most"])
        for ids in request["prompts"]
    ]
    cut = [runtime.tokenize(text.encode(), False, True) for text in request["texts"]]
    response = {"tokens": [a[0] for a in answers], "gaps": [a[1] for a in answers], "cut": cut}
    print(json.dumps(response))


def _answer_greedily(
    runtime: Any, ids: list[int], ends: list[int], most: int
) -> tuple[list[int], list[float]]:
    """Return the tokens and the gaps of a greedy answer."""
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

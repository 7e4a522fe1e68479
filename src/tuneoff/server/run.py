"""The contenders of a run, ready to be served, and the check that what is served is what was
scored.

Before the server opens, a sample of the test set is answered by the engine that will answer
clients, on the same bases and adapters, and compared with the predictions that were scored. In
float32 texts must be equal, but where the two best tokens were within 1e-3 of each other
(`NEAR_TIE`); in other precisions 99% must be.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tuneoff import prepare
from tuneoff.config import BakeOff, LocalSettings
from tuneoff.contenders import Work
from tuneoff.contenders.answering import prompts_of
from tuneoff.contenders.trainings import trainings
from tuneoff.errors import ConfigError, unknown
from tuneoff.models.loading import resolve_base
from tuneoff.progress import Silent
from tuneoff.records import Prediction
from tuneoff.rundir import ContenderDir, RunDir
from tuneoff.server.host import Host, Served
from tuneoff.server.live import Piece, Request, TokenChance

SAMPLE = 32
NEAR_TIE = 1e-3
LEAST_AGREEMENT = 0.99


@dataclass(frozen=True, slots=True)
class Ready:
    """A contender that can be served, with what its test answers were."""

    served: Served
    settings: LocalSettings
    work: Work
    predictions: dict[str, Prediction]


@dataclass(frozen=True, slots=True)
class Parity:
    """How answers through the server compare with the scored ones. `different` holds (id, scored,
    served) of those that are not the same."""

    name: str
    asked: int
    near_ties: int
    exact: bool
    different: tuple[tuple[str, str, str], ...]

    @property
    def passed(self) -> bool:
        """Whether what is served is what was scored."""
        agreed = self.asked - len(self.different)
        return self.asked > 0 and agreed >= (1 if self.exact else LEAST_AGREEMENT) * self.asked

    def lines(self) -> list[str]:
        """What to say about it."""
        same = self.asked - len(self.different)
        ties = f", {self.near_ties} of them near-ties" if self.near_ties else ""
        found = [f"{self.name}: {same} of {self.asked} answers are those that were scored{ties}."]
        found += [
            f"  {id}: scored {scored!r:.80}, served {served!r:.80}"
            for id, scored, served in self.different[:3]
        ]
        return found


def open_host(
    run_dir: Path, only: str | None, strict: bool, say: Callable[[str], None]
) -> tuple[Host, tuple[Served, ...]]:
    """What answers for a run's contenders, checked, and which they are.

    Raises:
        ConfigError: there is nothing to serve, or `strict` and answers differ.
    """
    ready, host = contenders_of(run_dir, only), Host()
    for each in ready:
        parity = check_parity(host, each)
        for line in parity.lines():
            say(line)
        if strict and not parity.passed:
            raise ConfigError(
                f"--strict: {parity.name} does not answer here as it did when it was scored; it "
                "is not served."
            )
    return host, tuple(each.served for each in ready)


def contenders_of(run_dir: Path, only: str | None = None) -> list[Ready]:
    """The tuned contenders of a run; of several seeds the first.

    Raises:
        ConfigError: the folder is no run, or holds nothing that can be served.
    """
    stored = run_dir / "bakeoff.yaml"
    if not stored.is_file():
        raise ConfigError(f"{run_dir}: there is no bakeoff.yaml in it; give a run directory.")
    bakeoff = BakeOff.model_validate(yaml.safe_load(stored.read_text(encoding="utf-8")))
    run = RunDir(run_dir)
    names = [contender.name for contender in bakeoff.contenders]
    if only is not None and only not in names:
        raise ConfigError(f"--contender: {unknown('contender', only, names)}.")
    chosen = tuple(
        c for c in bakeoff.contenders if only in (None, c.name) and isinstance(c, LocalSettings)
    )
    found = []
    if chosen:
        # Files that only scoring or others need may be gone.
        task = bakeoff.task.model_copy(update={"metrics": None})
        parts = prepare.parts(bakeoff.model_copy(update={"contenders": chosen, "task": task}))
        for settings in chosen:
            directory = trainings(settings)[0].directory(run.contender(settings.name))
            if directory.weights() is not None:
                found.append(_ready(parts, run, settings, directory))
    if not found:
        raise ConfigError(
            f"{run_dir}: no contender of it was tuned here{f' as {only}' if only else ''}; "
            "run the bake-off first."
        )
    return found


def _ready(
    parts: prepare.Parts, run: RunDir, settings: LocalSettings, directory: ContenderDir
) -> Ready:
    if settings.quantization != "none":
        raise ConfigError(
            f"contender {settings.name}: a {settings.quantization} base is not served yet; "
            "name another with --contender."
        )
    full = settings.method == "full"
    base = str(directory.model) if full else resolve_base(settings.base, parts.bakeoff.folder)
    served = Served(
        settings.name, base, None if full else directory.adapter, settings.train.precision
    )
    work = Work(
        folder=parts.bakeoff.folder,
        train=run.examples("train"),
        validation=[],
        test=run.examples("test"),
        template=parts.template,
        prompt=parts.settings.prompt,
        max_new_tokens=parts.max_new_tokens,
        directory=directory,
        progress=Silent(),
    )
    return Ready(served, settings, work, directory.predictions())


def check_parity(host: Host, ready: Ready, sample: int = SAMPLE) -> Parity:
    """Answers a sample of the test set and compares."""
    import torch

    base = host.base(ready.served)
    answered = [e for e in ready.work.test if e.id in ready.predictions]
    step = max(1, len(answered) // sample)
    examples = answered[::step][:sample]
    prompts = prompts_of(ready.settings, ready.work, base.tokenizer, examples)
    texts = _answers(host, ready, prompts)
    different, ties = [], 0
    for example, (tokens, text) in zip(examples, texts, strict=True):
        scored = ready.predictions[example.id].prediction
        if text.strip() == scored:
            continue
        if _is_near_tie(base.tokenizer, tokens, scored):
            ties += 1
        else:
            different.append((example.id, scored, text.strip()))
    exact = base.model.dtype == torch.float32
    return Parity(ready.served.name, len(examples), ties, exact, tuple(different))


def _answers(
    host: Host, ready: Ready, prompts: Sequence[tuple[str, list[int]]]
) -> list[tuple[list[TokenChance], str]]:
    """Tokens with their chances, and text, of each answer; asked all at once."""
    told: queue.Queue[tuple[int, Piece]] = queue.Queue()
    found: list[tuple[list[TokenChance], str]] = [([], "") for _ in prompts]

    def teller(place: int) -> Request:
        return Request(
            ids=prompts[place][1],
            max_tokens=ready.work.max_new_tokens,
            tell=lambda piece: told.put((place, piece)),
            temperature=0,
            logprobs=2,
        )

    for place in range(len(prompts)):
        host.submit(ready.served, teller(place))
    left = len(prompts)
    while left:
        place, piece = told.get()
        if piece.error is not None:
            raise ConfigError(f"contender {ready.served.name}: {piece.error}.")
        chances, text = found[place]
        found[place] = [*chances, *piece.chances], text + piece.text
        left -= piece.finish_reason is not None
    return found


def _is_near_tie(tokenizer: object, tokens: Sequence[TokenChance], scored: str) -> bool:
    """Whether the first token with which an answer leaves the scored one was a close call."""
    decode = tokenizer.decode  # type: ignore[attr-defined]
    for count, each in enumerate(tokens, 1):
        text = str(decode([t.token for t in tokens[:count]], skip_special_tokens=True)).lstrip()
        if not scored.startswith(text.rstrip("\ufffd")):
            best, second = each.likeliest
            return best[1] - second[1] < NEAR_TIE
    return False

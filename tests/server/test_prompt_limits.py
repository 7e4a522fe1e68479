"""Prompts that cannot fit: little of them is tokenized, others are answered meanwhile, nothing is
done for a client that has gone; and what may fit has exactly its own tokens."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
from abuse import shaped
from helpers import write_base
from running import request, server, upload
from starlette.requests import ClientDisconnect
from test_abandoned import asked, body, running

from tuneoff.models.loading import SHIPPED_BASE_DIR, load_tokenizer
from tuneoff.server import prompt_limits
from tuneoff.server.prompt_limits import PIECE_CHARACTERS, TooLongError, refuse_too_long
from tuneoff.server.token_bounds import TokenLowerBound

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
SIZE = 5_000_000
WORDS = "The hut number 17 has a stove of tiles.\n"
LONG_TEXTS = {
    "words": WORDS, "no blanks": "abcdefghijkl0", "blanks": " ", "lines": "\n", "emoji": "😀🏔️",
    "cjk": "山小屋的炉子", "marks": "e\u0301", "controls": "<s></s>", "hebrew": "שלום ",
}  # fmt: skip


class Counting:
    """A tokenizer that notes how many characters it was given."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer, self.backend_tokenizer, self.given = tokenizer, self, 0

    def encode_batch_fast(self, texts: list[str], **options: Any) -> Any:
        self.given += sum(map(len, texts))
        return self._tokenizer.backend_tokenizer.encode_batch_fast(texts, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer.backend_tokenizer, name, None) or getattr(
            self._tokenizer, name
        )


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(str(SHIPPED_BASE_DIR))


@pytest.mark.parametrize("room", [2_000, 50_000])
@pytest.mark.parametrize("unit", LONG_TEXTS.values(), ids=LONG_TEXTS)
def test_no_more_is_tokenized_than_may_fit(tokenizer: Any, unit: str, room: int) -> None:
    counting = Counting(tokenizer)
    with pytest.raises(TooLongError):
        refuse_too_long(counting, unit * (SIZE // 2 // len(unit.encode())), room, lambda: False)
    # Tokens of this base hold four characters at most where many are alike (blanks: two).
    assert counting.given <= 4 * room + PIECE_CHARACTERS


@pytest.mark.parametrize("unit", LONG_TEXTS.values(), ids=LONG_TEXTS)
def test_what_fits_is_never_refused(tokenizer: Any, tiny_base: Path, unit: str) -> None:
    """Neither by the bytes that a token holds at most, nor by what cuts make of a word."""
    for each in (tokenizer, load_tokenizer(str(tiny_base))):
        text = unit * (60_000 // len(unit))
        tokens = len(each(text, add_special_tokens=False)["input_ids"])
        assert TokenLowerBound(each).of(text) <= tokens
        refuse_too_long(each, text, tokens, lambda: False)
        with pytest.raises(TooLongError):
            refuse_too_long(each, text, tokens * 9 // 10, lambda: False)


def test_what_a_tokenizer_takes_out_counts_as_nothing() -> None:
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    bytes_alone = {token: id for id, token in enumerate(pre_tokenizers.ByteLevel.alphabet())}

    def least(text: str, *steps: Any, added: AddedToken | None = None) -> float:
        bpe = Tokenizer(models.BPE(vocab=dict(bytes_alone), merges=[]))
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        bpe.normalizer = normalizers.Sequence(list(steps))
        fast = PreTrainedTokenizerFast(tokenizer_object=bpe)
        if added is not None:
            fast.add_tokens([added])
        found = TokenLowerBound(fast).of(text)
        assert found <= len(fast(text, add_special_tokens=False)["input_ids"])
        return found

    assert least("a b\n") == 4
    assert least("a b", normalizers.Replace("b", "")) == 2
    assert least("a-b", normalizers.Replace(Regex(r"\-(?=b)"), "+")) == 2
    assert least("a  b", normalizers.Replace(Regex(" {2,}"), " ")) == 0
    assert least("a b", normalizers.Lowercase()) == 0
    assert least(" a ", normalizers.Strip()) == 1
    assert least("ab", normalizers.NFC()) == 2
    assert least("e\u0301", normalizers.NFC()) == 0
    assert least("a <x>   ", added=AddedToken("<x>", rstrip=True)) == 2


def test_counting_stops_when_the_client_goes(tokenizer: Any) -> None:
    counting, looks = Counting(tokenizer), iter([False, False, True])
    with pytest.raises(ClientDisconnect):
        refuse_too_long(counting, "😀" * 100_000, 10**9, lambda: next(looks))
    assert counting.given == 2 * PIECE_CHARACTERS


def test_one_long_prompt_at_a_time_and_small_ones_beside_it(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one whose client goes while it waits is never looked at."""
    at_it, most, begun, go_on = 0, 0, list[int](), threading.Event()
    count = prompt_limits._count

    def counted(tokenizer: Any, piece: str) -> int:
        nonlocal at_it, most
        at_it += 1
        most = max(most, at_it)
        begun.append(len(piece))
        assert go_on.wait(300)
        at_it -= 1
        return count(tokenizer, piece)

    monkeypatch.setattr(prompt_limits, "_count", counted)
    monkeypatch.setattr(prompt_limits, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(TokenLowerBound, "of", lambda self, text: 0.0)  # or nothing is counted
    long = "山小屋的炉子" * 12_000

    async def story() -> None:
        async with running(tiny_base, tmp_path) as (app, host):
            leaves = asyncio.Event()
            chat = body(messages=[{"role": "user", "content": long}], stream=True)
            waiting = [
                asyncio.create_task(asked(app, "POST", CHAT, chat)),
                asyncio.create_task(asked(app, "POST", TEXT, {"model": "random", "prompt": long})),
            ]
            while not begun:
                await asyncio.sleep(0.01)
            gone = asyncio.create_task(asked(app, "POST", CHAT, chat, leaves.wait))
            (small,) = await asyncio.gather(asked(app, "POST", CHAT, body(max_tokens=1)))
            assert small[0]["status"] == 200
            leaves.set()
            await gone
            assert len(begun) == 1
            go_on.set()
            for told in await asyncio.gather(*waiting):
                error = json.loads(told[1]["body"])["error"]
                assert (told[0]["status"], error["code"]) == (400, "context_length_exceeded")
                assert "the prompt takes more than 10" in error["message"]
            assert (most, len(begun)) == (1, 2)
            assert len(host.asked) == 1  # the small one

    asyncio.run(asyncio.wait_for(story(), 300))


TEMPLATE = "{% for m in messages %}<s>{{ m.role }}: {{ m.content | trim }}</s>{% endfor %}"


def test_a_real_server_refuses_and_answers(tmp_path: Path) -> None:
    """Blanks that a template takes off are no part of the prompt."""
    base = write_base(tmp_path / "base", [WORDS], TEMPLATE)

    def row(question: str) -> str:
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": "b"}]
        return json.dumps({"messages": turns}) + "\n"

    with server(tmp_path / "data", "--base", str(base)) as (port, process):
        answers: list[Callable[[], tuple[int, Any]]] = [
            lambda: chat(WORDS * (SIZE // len(WORDS))),
            lambda: chat("a", "b", *["a", "b"] * 2_000),
            lambda: request(port, "POST", TEXT, {"model": "base", "prompt": "<s>" * 100_000}),
        ]

        def chat(*contents: str) -> tuple[int, Any]:
            roles = ("user", "assistant")
            turns = [{"role": roles[n % 2], "content": text} for n, text in enumerate(contents)]
            asked = {"model": "base", "messages": turns, "max_tokens": 2}
            return request(port, "POST", CHAT, asked)

        for answer in answers:
            status, told = answer()
            shaped(status, told)
            assert told["error"]["code"] == "context_length_exceeded"
            assert told["error"]["param"] in ("messages", "prompt")
        status, answered = chat(" " * SIZE + "a")
        assert status == 200, answered
        assert answered["usage"]["prompt_tokens"] == chat("a")[1]["usage"]["prompt_tokens"]
        file = upload(port, "".join([row("a")] * 12 + [row(WORDS * 99)]).encode())[1]["id"]
        status, told = request(
            port, "POST", "/v1/fine_tuning/jobs", {"model": "base", "training_file": file}
        )
        assert (status, told["error"]["param"]) == (400, "training_file")
        assert "Line 13 of the training file has " in told["error"]["message"]
        assert "Shorten that example or leave it out" in told["error"]["message"]
        assert process.poll() is None

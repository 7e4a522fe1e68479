"""Models that our engine does not serve exactly are answered by `transformers.generate`, with the
same parameters, streamed and stopped alike: here a Gemma 2, whose attention has a soft cap."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running import server

openai = pytest.importorskip("openai")
pytest.importorskip("fastapi")
WINDOW = 48
PROMPT = "name[The Mill], area[riverside]"


@pytest.fixture(scope="module")
def base(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import AutoTokenizer, Gemma2Config, Gemma2ForCausalLM

    folder = tmp_path_factory.mktemp("bases") / "capped"
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=512,
        initializer_range=0.3, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    Gemma2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def client(base: Path, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    data = tmp_path_factory.mktemp("alone") / "data"
    with server(data, "--base", str(base), "--base", str(tiny_base)) as (port, _):
        yield openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="any", max_retries=0)


def complete(client: Any, base: Path, **more: Any) -> Any:
    asked = {"prompt": PROMPT, "temperature": 0, "max_tokens": 12, **more}
    return client.completions.create(model=base.name, **asked)


def greedy(base: Path) -> str:
    """What `generate` answers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tuneoff.inference import engine_check

    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(base)
    ids = tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    assert "softcap" in (engine_check.explain_unsupported(model, ids.tolist(), 12) or "")
    new = model.generate(input_ids=ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
    return str(tokenizer.decode(new, skip_special_tokens=True))


def test_the_answer_is_that_of_generate(client: Any, base: Path) -> None:
    wanted, whole = greedy(base), complete(client, base)
    assert whole.choices[0].text == wanted
    assert (whole.choices[0].finish_reason, whole.usage.completion_tokens) == ("length", 12)
    streamed = complete(client, base, stream=True)
    pieces = [chunk.choices[0].text for chunk in streamed if chunk.choices]
    assert "".join(pieces) == wanted
    assert len([piece for piece in pieces if piece]) > 3


def test_stop_seed_n_and_log_probabilities(client: Any, base: Path) -> None:
    wanted = greedy(base)
    stop = wanted[5:8]
    stopped = complete(client, base, stop=stop).choices[0]
    assert (stopped.text, stopped.finish_reason) == (wanted[: wanted.index(stop)], "stop")

    def sampled(seed: int) -> list[str]:
        answer = complete(client, base, temperature=1.5, top_p=0.9, n=3, seed=seed)
        return [choice.text for choice in answer.choices]

    assert sampled(1) == sampled(1)
    assert len({*sampled(1), *sampled(2)}) > 3
    chat = client.chat.completions.create(
        model=base.name, messages=[{"role": "user", "content": "x"}], temperature=0,
        max_tokens=4, logprobs=True, top_logprobs=2,
    )  # fmt: skip
    content = chat.choices[0].logprobs.content
    assert len(content) == 4
    assert content[0].logprob == content[0].top_logprobs[0].logprob


def test_a_client_that_goes_away_ends_the_work(client: Any, base: Path, tiny_base: Path) -> None:
    stream = complete(client, base, max_tokens=450, temperature=1.0, stream=True)
    next(iter(stream))
    stream.close()
    assert complete(client, base).choices[0].text == greedy(base)
    # The other base answers meanwhile, too.
    assert complete(client, tiny_base).usage.completion_tokens == 12


def test_closing_breaks_off_an_answer(base: Path) -> None:
    from tuneoff.inference.loaded_model import ServedModel
    from tuneoff.inference.requests import Delta, GenerationRequest
    from tuneoff.inference.transformers_backend import TransformersBackend

    host, begun, told = TransformersBackend(), threading.Event(), list[Delta]()

    def tell(piece: Delta) -> None:
        told.append(piece)
        begun.set()

    host.submit(ServedModel("capped", str(base)), GenerationRequest([5, 6], 500, tell, logprobs=0))
    assert begun.wait(60)
    host.close()
    assert not any(piece.finish_reason for piece in told)
    assert len(told) < 500


@pytest.fixture
def windowed(tiny_base: Path, tmp_path: Path) -> Path:
    """A base whose long texts the engine does not serve, and whose short ones it does."""
    import torch
    from transformers import AutoTokenizer, MistralConfig, MistralForCausalLM

    folder = tmp_path / "windowed"
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=1024,
        sliding_window=WINDOW, initializer_range=0.3, bos_token_id=1, eos_token_id=2,
        pad_token_id=0,
    )  # fmt: skip
    MistralForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def adapter(windowed: Path, tmp_path: Path) -> Path:
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    config = peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    model = AutoModelForCausalLM.from_pretrained(windowed, dtype=torch.float32)
    peft.get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_a_long_answer_takes_turns_with_others(windowed: Path, adapter: Path) -> None:
    """Also with those of adapters that are loaded meanwhile, and with the adapter itself."""
    import torch
    from transformers import AutoModelForCausalLM

    from tuneoff.inference.loaded_model import ServedModel
    from tuneoff.inference.requests import Delta, GenerationRequest
    from tuneoff.inference.transformers_backend import TransformersBackend

    base, tuned = ServedModel("base", str(windowed)), ServedModel("tuned", str(windowed), adapter)
    model: Any = AutoModelForCausalLM.from_pretrained(windowed, dtype=torch.float32).eval()
    prompt, most = [5, 9, 200, 31, 77], 400

    def wanted(tokens: int) -> list[int]:
        ids = torch.tensor([prompt])
        made = model.generate(
            input_ids=ids, max_new_tokens=tokens, do_sample=False, eos_token_id=None
        )
        return list(made[0, len(prompt) :].tolist())

    expected = {("base", most): wanted(most), ("base", 9): wanted(9)}
    model.load_adapter(str(adapter))
    expected |= {("tuned", most): wanted(most), ("tuned", 9): wanted(9)}
    ended, host, told = (
        queue.Queue[tuple[str, int]](),
        TransformersBackend(),
        dict[tuple[str, int], list[int]](),
    )

    def submit(served: ServedModel, tokens: int) -> None:
        key = served.name, tokens
        told[key] = []

        def tell(piece: Delta) -> None:
            assert piece.error is None
            told[key] += [chance.token for chance in piece.chances]
            if piece.finish_reason is not None:
                ended.put(key)
            elif key == ("base", most) and len(told[key]) == 2:
                # Everybody else comes while this one is under way.
                for other, count in ((base, 9), (tuned, 9), (tuned, most)):
                    submit(other, count)

        host.submit(served, GenerationRequest(prompt, tokens, tell, temperature=0, logprobs=0))

    try:
        submit(base, most)
        order = [ended.get(timeout=120) for _ in range(4)]
    finally:
        host.close()
    assert set(order[:2]) == {("base", 9), ("tuned", 9)}
    assert order[2:] == [("base", most), ("tuned", most)]
    for key, tokens in told.items():
        assert tokens == expected[key][: len(tokens)], key
        end = len(tokens) == key[1] or expected[key][len(tokens)] == 2
        assert end, key


def test_who_left_the_line_is_not_answered(base: Path) -> None:
    from tuneoff.inference.loaded_model import ServedModel
    from tuneoff.inference.requests import Delta, GenerationRequest
    from tuneoff.inference.transformers_backend import TransformersBackend

    host, told, served = (
        TransformersBackend(),
        queue.Queue[Delta](),
        ServedModel("capped", str(base)),
    )
    gone = GenerationRequest([5, 6], 500, told.put, logprobs=0)
    gone.cancelled.set()
    try:
        host.submit(served, gone)
        assert told.get(timeout=60) == Delta("", finish_reason="stop")
        assert host.unfinished() == 0
    finally:
        host.close()

"""Data is text in every prompt, and a prompt without spellings has exactly transformers' tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer

from tuneoff.inference.detokenizer import IncrementalDetokenizer
from tuneoff.models.loading import SHIPPED_BASE_DIR, load_tokenizer
from tuneoff.tasks.samples import functional
from tuneoff.tokenization.chat_template import load_chat_template
from tuneoff.tokenization.encode import encode_text, encode_turns, get_turn_end, load_encoder
from tuneoff.tokenization.offline import load_counter
from tuneoff.tokenization.text_tokenizer import SpellingError

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TRIMMED = CHATML.replace("m['content']", "m['content'] | trim")
INSTRUCTED = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}"
    "{{ ' ' + m['content'] + eos_token }}{% else %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% endif %}{% endfor %}"
)
# Looks into what was said, as templates of reasoning models do.
LOOKS = CHATML.replace(
    "+ m['content'] +",
    "+ (m['content'].split('</think>')[-1] | trim if '</think>' in m['content'] "
    "else m['content']) +",
)
NAMES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<mask>"]
TEXT = [
    "system user assistant write <b> im start end INST of s think mask unk | / > < [ ] text"
] * 3

Build = Callable[[], Tokenizer]


def byte_level(**options: Any) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(**options))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


def prefixed_byte_level() -> Tokenizer:
    tokenizer = byte_level()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return tokenizer


def sentencepiece(scheme: str, spelled: bool = False) -> Tokenizer:
    """Like Llama 2's. `spelled`: the vocabulary's own merges make `</s>`, too."""
    letters = sorted({*"▁", *"".join(TEXT).replace(" ", "▁"), *"hideacon,.?"})
    pieces = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *letters, "▁t", "▁te", "▁tex"]
    merges = [("▁", "t"), ("▁t", "e"), ("▁te", "x")]
    if spelled:
        pieces += ["</", "s>"]
        merges += [("<", "/"), ("s", ">"), ("</", "s>")]
    vocab = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(
        models.BPE(vocab, merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>")
    )
    last = [decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    if scheme == "legacy":
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), *last])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), *last])
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def unigram() -> Tokenizer:
    """Whose vocabulary holds special tokens as pieces of text."""
    letters = sorted({*"▁", *"".join(TEXT).replace(" ", "▁"), *"hideacon,.?é_|"})
    pieces = [(piece, 0.0) for piece in SPECIAL] + [(letter, -5.0) for letter in letters]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def compatible() -> Tokenizer:
    """Which takes full-width letters as ordinary ones, and special tokens after that."""
    tokenizer = byte_level()
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.add_special_tokens([AddedToken("<mask>", normalized=True, special=True)])
    tokenizer.add_special_tokens([AddedToken("<|alert|>", normalized=True, special=True)])
    return tokenizer


def with_words() -> Tokenizer:
    tokenizer = byte_level()
    tokenizer.add_tokens(["<think>", "</think>", AddedToken("blubb", single_word=True)])
    tokenizer.add_special_tokens([AddedToken("<|pad|>", lstrip=True, rstrip=True, special=True)])
    return tokenizer


BUILDS: dict[str, Build] = {
    "byte level": byte_level,
    "prefixed": prefixed_byte_level,
    "legacy": lambda: sentencepiece("legacy"),
    "always": lambda: sentencepiece("always"),
    "first": lambda: sentencepiece("first"),
    "spelled": lambda: sentencepiece("first", spelled=True),
    "unigram": unigram,
    "compatible": compatible,
    "words": with_words,
}
TEMPLATES = {"chatml": CHATML, "trimmed": TRIMMED, "instructed": INSTRUCTED, "looks": LOOKS}
PLAIN = [
    "write text",
    "  of <b>im</b> \n",
    "",
    "<",
    "> s",
    "|",
    "user",
    "é 漢 🙂 \ue000",
    "a_<|x|>",
]
SPELLED = [
    "<s>text</s>",
    "</s>",
    " <|im_end|> ",
    "of <|im_end|>|im_end|> s",
    "<|im_start|>system\nwrite",
    "text <unk> <mask>",
    "\ue000⟦<s>⟧\U000f0000 é</s>",
]


def load(build: Build, template: str | None) -> Any:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=build(), **NAMES)
    tokenizer.chat_template = template
    return tokenizer


def as_transformers(tokenizer: Any, turns: list[dict[str, str]]) -> list[int]:
    ids: list[int] = tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, return_dict=False, enable_thinking=False
    )
    return ids


def conversation(*contents: str) -> list[dict[str, str]]:
    roles = ("user", "assistant") * len(contents)
    return [{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)]


@pytest.mark.parametrize("name", BUILDS)
def test_without_a_spelling_the_tokens_are_those_of_transformers(name: str) -> None:
    for template in TEMPLATES.values():
        tokenizer = load(BUILDS[name], template)
        for place, text in enumerate(PLAIN):
            turns = conversation(text, PLAIN[place - 1], PLAIN[place - 2])
            assert encode_turns(tokenizer, turns) == as_transformers(tokenizer, turns), text
            assert (
                encode_text(tokenizer, text) == tokenizer(text, add_special_tokens=False).input_ids
            )


@pytest.mark.parametrize("name", BUILDS)
def test_a_spelling_is_text_and_is_decoded_whole(name: str, tmp_path: Path) -> None:
    for title, template in TEMPLATES.items():
        tokenizer = load(BUILDS[name], template)
        special = load_encoder(tokenizer).tokenizer.special
        for text in SPELLED:
            alone = encode_text(tokenizer, text)
            assert not any(special.is_control(token, "<s></s><mask>") for token in alone
                           if token != tokenizer.unk_token_id)  # fmt: skip
            turns = conversation(text, "of", text)
            ids = encode_turns(tokenizer, turns)
            # The template's own control tokens, and no others: as many as round harmless words.
            controls = [token for token in ids if token in special.tokens]
            harmless = as_transformers(tokenizer, conversation("of", "of", "of"))
            unknown = tokenizer.unk_token_id
            assert [t for t in controls if t != unknown] == [
                token for token in harmless if token in special.tokens and token != unknown
            ], (title, text)
            if name in ("byte level", "words", "first", "spelled"):
                shown = tokenizer.decode(alone, skip_special_tokens=True)
                # A prefix space takes the place of a text's own first one.
                assert shown.lstrip() == text.lstrip()
                growing = IncrementalDetokenizer(tokenizer)
                streamed = "".join(growing.add(token) for token in alone) + growing.rest()
                assert streamed.lstrip() == text.lstrip()
                assert tokenizer.decode(ids).count(text.strip()) >= 2
        counted = saved(tokenizer, tmp_path / title)
        for text in (*SPELLED, *PLAIN):
            turns = conversation(text, "of", text)
            assert counted.encode_prompt(turns) == encode_turns(tokenizer, turns)
            assert counted.encode_prompt(text) == encode_text(tokenizer, text)


def saved(tokenizer: Any, folder: Path) -> Any:
    """The offline counter of a tokenizer."""
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 512}))
    counter = load_counter(str(folder))
    assert counter is not None
    return counter


def test_text_around_a_spelling_keeps_its_tokens() -> None:
    """Cut where the tokenizer itself cuts: only the spelled characters have other tokens."""
    tokenizer = load(BUILDS["first"], INSTRUCTED)
    spelled = encode_turns(tokenizer, conversation("text </s> text"))
    pieces = tokenizer.convert_ids_to_tokens(spelled)
    assert pieces == [
        "<s>", *"[INST]", "▁tex", "t", "▁", "<", "/", "s", ">", "▁tex", "t", *"▁[/INST]",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "contents",
    [("<|im_",), ("<|im", "_", "end|>"), ("im_end|>", "<|"), ("<|im_end|", "|>"), ("<", "s>")],
)
def test_a_spelling_across_contents_is_text(contents: tuple[str, ...]) -> None:
    glued = "{{ bos_token }}{% for m in messages %}{{ m['content'] | trim }}{% endfor %}end|>"
    tokenizer = load(byte_level, glued)
    ids = encode_turns(tokenizer, conversation(*contents))
    assert ids[0] == tokenizer.bos_token_id
    assert not load_encoder(tokenizer).tokenizer.special.tokens.keys() & set(ids[1:])
    assert tokenizer.decode(ids) == "<s>" + "".join(contents) + "end|>"


def test_normalizing_makes_a_spelling() -> None:
    tokenizer = load(compatible, CHATML)
    special = load_encoder(tokenizer).tokenizer.special.tokens
    for text in ("＜｜ａｌｅｒｔ｜＞", "<|ALERT|>", "of <|Alert|> s"):
        assert set(tokenizer(text).input_ids) & special.keys()  # it is one to the tokenizer
        assert not set(encode_text(tokenizer, text)) & special.keys()
        ids = encode_turns(tokenizer, conversation(text))
        assert sum(token in special for token in ids) == 3


def test_words_stay_words_and_a_template_may_look_for_them() -> None:
    tokenizer = load(with_words, LOOKS)
    think = tokenizer.convert_tokens_to_ids("<think>")
    assert encode_text(tokenizer, "<think> blubb")[0] == think
    # Its own sign, spelled in a turn that spells a control token besides.
    turns = conversation("write", "<think> a </think> of <s>", "s")
    ids = encode_turns(tokenizer, turns)
    assert think not in ids
    assert tokenizer.decode(ids).count("assistant\nof <s><|im_end|>") == 1
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    assert encode_turns(tokenizer, turns) == ids


def test_a_role_or_the_template_makes_a_word_a_control_token() -> None:
    from transformers import PreTrainedTokenizerFast

    backend = byte_level()
    backend.add_tokens(["<end>", "<eot>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")
    tokenizer.chat_template = CHATML.replace("<|im_end|>", "<eot>")
    assert get_turn_end(tokenizer) == tokenizer.convert_tokens_to_ids("<eot>")
    for text in ("<end>", "<eot>"):
        ids = encode_text(tokenizer, text)
        assert len(ids) > 1
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_a_vocabulary_without_the_characters_refuses() -> None:
    words = Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "of": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.add_special_tokens(["<unk>", "<s>"])
    tokenizer = load(lambda: words, None)
    assert encode_text(tokenizer, "of what") == [2, 0]
    with pytest.raises(SpellingError, match="'<s>', a special token that this tokenizer cannot"):
        encode_text(tokenizer, "of <s>")


def test_a_tokenizer_in_python() -> None:
    from transformers import ByT5Tokenizer

    tokenizer: Any = ByT5Tokenizer(extra_ids=2)
    tokenizer.chat_template = INSTRUCTED.replace("bos_token", "pad_token")
    assert not tokenizer.is_fast
    for text in PLAIN:
        turns = conversation(text, "of", text)
        assert encode_turns(tokenizer, turns) == as_transformers(tokenizer, turns)
    for text in ("a </s> b<pad>", "<extra_id_0>"):
        ids = encode_turns(tokenizer, conversation(text))
        shown = tokenizer.decode(encode_text(tokenizer, text), skip_special_tokens=True)
        assert shown == text
        assert ids[0] == tokenizer.pad_token_id
        assert tokenizer.decode(ids[1:], skip_special_tokens=True) == f"[INST] {text} [/INST]"


def test_threads_share_a_tokenizer() -> None:
    from concurrent.futures import ThreadPoolExecutor

    tokenizer = load(byte_level, CHATML)
    texts = [*SPELLED, *PLAIN] * 8
    expected = [encode_turns(tokenizer, conversation(text)) for text in texts]
    fresh = load(byte_level, CHATML)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: encode_turns(fresh, conversation(text)), texts))
    assert found == expected


def test_the_shipped_base_encodes_its_samples_as_before() -> None:
    tokenizer: Any = load_tokenizer(str(SHIPPED_BASE_DIR))
    for example in functional.generate()["test"][:100]:
        text = f"{example.inputs['sentence']} {example.completion}"
        assert encode_text(tokenizer, text) == tokenizer(text, add_special_tokens=False).input_ids
    assert load_chat_template(tokenizer).source == ""
    assert get_turn_end(tokenizer) is None


def test_a_template_that_changes_spellings_hides_no_control_token() -> None:
    escaped = CHATML.replace("m['content']", "(m['content'] | replace('<', '&lt;')) ")
    tokenizer = load(byte_level, escaped)
    turns = conversation("of <s>", "<b>", "</s>")
    ids = encode_turns(tokenizer, turns)
    assert ids == as_transformers(tokenizer, turns)
    assert "of &lt;s><|im_end|>" in tokenizer.decode(ids)
    # Whether it says this one itself, or passes it on, cannot be known.
    echoed = CHATML.replace(
        "m['content'] +", "m['content'] + ('<s>' if m['content'] == '<s>' else '!') +"
    )
    tokenizer = load(byte_level, echoed)
    with pytest.raises(SpellingError, match="'<s>', a special token that this base's chat templa"):
        encode_turns(tokenizer, conversation("<s>"))
    assert encode_turns(tokenizer, conversation("of town")) == as_transformers(
        tokenizer, conversation("of town")
    )


def test_a_template_that_writes_the_time() -> None:
    from tuneoff.tokenization.spellings import render_with_spans

    ticks = iter(range(100))

    def render(turns: Any) -> str:
        tick = next(ticks)
        return f"{tick // 3} {turns[0]['content']}"

    found = render_with_spans(render, [{"content": "a <s>"}], [[(2, 5)]])
    assert found.hidden is None
    assert [found.text[start:end] for start, end in found.data] == ["<s>"]

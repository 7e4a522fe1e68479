"""Encodes the prompt of a request, or refuses it naming the field to blame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from fastapi import Request as HttpRequest

from tuneoff import prompts
from tuneoff.inference.backend import LoadedModelInfo
from tuneoff.inference.loaded_model import ServedModel
from tuneoff.models.embedding import find_unknown_token
from tuneoff.prompts import CHAT_PASS_THROUGH
from tuneoff.records import Example
from tuneoff.server.errors import ApiError
from tuneoff.server.prompt_limits import (
    PIECE_CHARACTERS,
    TooLongError,
    encode_in_turn,
    refuse_too_long,
)
from tuneoff.server.request_schemas import ChatCreate, Sampled
from tuneoff.tokenization.chat_template import TemplateError, load_chat_template
from tuneoff.tokenization.text_tokenizer import SpellingError


async def encode_bounded(
    http: HttpRequest,
    base: LoadedModelInfo,
    body: Sampled,
    limit: int | None,
    characters: int,
    render: Callable[[], str],
    encode: Callable[[], list[int]],
) -> list[int]:
    """Return a prompt's token ids; refuse a prompt that is surely too long before encoding it all.

    Args:
        limit: the most tokens that the answer may have.
        characters: number of characters that the client sent.
        render: returns the whole prompt as text.
        encode: returns its token ids.
    """
    room = base.positions - (limit or 1)
    if room < 1:
        name = "max_completion_tokens" if _is_newer(body) else "max_tokens"
        raise ApiError(
            400, f"This model has {base.positions} positions for prompt and answer, and the answer "
            f"may take {limit}. Lower {name}.", name, "context_length_exceeded",
        )  # fmt: skip

    def work(gone: Callable[[], bool]) -> list[int]:
        """Encode the prompt unless it is surely too long."""
        if characters > PIECE_CHARACTERS:
            refuse_too_long(base.tokenizer, render(), room, gone)
        return encode()

    try:
        return await encode_in_turn(http, characters, work)
    except TooLongError:
        raise explain_too_long(base, f"more than {room}", limit, body) from None


def _is_newer(body: Sampled) -> bool:
    """Say whether a request limits its answer by the newer parameter name."""
    return isinstance(body, ChatCreate) and body.max_completion_tokens is not None


def explain_too_long(
    base: LoadedModelInfo, taken: object, limit: int | None, body: Sampled
) -> ApiError:
    """Return the error for a prompt that leaves no room for its answer."""
    return ApiError(
        400,
        f"This model has {base.positions} positions; the prompt takes {taken} and the answer may "
        f"take {limit or 1}. Shorten the prompt or lower max_tokens.",
        "messages" if isinstance(body, ChatCreate) else "prompt",
        "context_length_exceeded",
    )


def render_chat(base: LoadedModelInfo, served: ServedModel, example: Example) -> str:
    """Return the text that `encode_chat` encodes.

    Raises:
        ApiError: the chat template refuses the turns.
    """
    from tuneoff.models.loading import choose_rendering

    if choose_rendering(base.tokenizer, None) == "text":
        return prompts.render_text(example, CHAT_PASS_THROUGH)
    turns = prompts.render_messages(example, CHAT_PASS_THROUGH)
    try:
        return load_chat_template(base.tokenizer, served.today).render(turns)
    except TemplateError as error:
        raise _explain_template_refusal(error) from None


def encode_chat(base: LoadedModelInfo, served: ServedModel, example: Example) -> list[int]:
    """Return the token ids of a conversation, up to where the assistant's answer starts.

    Raises:
        ApiError: the chat template refuses the turns, or they cannot be encoded.
    """
    from tuneoff.models.loading import choose_rendering
    from tuneoff.tokenization.examples import encode_prompt

    rendering = choose_rendering(base.tokenizer, None)
    template = replace(CHAT_PASS_THROUGH, today=served.today)
    try:
        return encode_prompt(base.tokenizer, example, template, rendering)
    except TemplateError as error:
        raise _explain_template_refusal(error) from None
    except SpellingError as error:
        raise _explain_spelling(error, "messages") from None


def encode_text_prompt(base: LoadedModelInfo, text: str) -> list[int]:
    """Return the token ids of a text prompt.

    Raises:
        ApiError: it cannot be encoded.
    """
    from tuneoff.tokenization.examples import encode_plain_text

    try:
        return encode_plain_text(base.tokenizer, text)
    except SpellingError as error:
        raise _explain_spelling(error, "prompt") from None


def _explain_template_refusal(error: TemplateError) -> ApiError:
    """Return the error for turns that a chat template refuses, such as two user turns in a row."""
    return ApiError(400, f"The model's chat template {error.why}.", "messages", "invalid_value")


def _explain_spelling(error: SpellingError, param: str) -> ApiError:
    """Return the error for a prompt that cannot be encoded."""
    return ApiError(400, f"The prompt cannot be encoded: {error}", param, "invalid_value")


def refuse_unembedded(base: LoadedModelInfo, ids: list[int], param: str) -> None:
    """Refuse a prompt with a token that the model has no embedding for.

    Raises:
        ApiError: it has one.
    """
    token = find_unknown_token(ids, base.rows)
    if token is not None:
        text = base.tokenizer.convert_ids_to_tokens(token)
        raise ApiError(
            400,
            f"The prompt holds the token {text!r}, whose id is {token}: the tokenizer knows "
            f"{len(base.tokenizer)} tokens, and the model's embedding has {base.rows} rows. Leave "
            "it out.",
            param,
            "invalid_value",
        )

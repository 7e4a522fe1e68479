"""The output head and the input embedding, which share one tied weight in many models.

An adapter may change the head or the embedding alone, or each differently. Merged into one weight,
each change would affect the other too; so the head is untied first (`untie_head`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def is_tied(model: Any) -> bool:
    """Return whether the head and the embedding share one weight."""
    weight = getattr(model.get_output_embeddings(), "weight", None)
    return weight is not None and weight is model.get_input_embeddings().weight


def correct_tie_flag(model: Any) -> None:
    """Correct the configuration of a model that is called tied and is not.

    Transformers loads both weights of such a file; other runtimes would drop one.
    """
    configs = _find_tied_configs(model)
    if configs and model.get_output_embeddings() is not None and not is_tied(model):
        _set_tie_flag(model, configs, False)


@contextmanager
def untie_head(model: Any) -> Iterator[None]:
    """Give a tied head its own copy of the weight while inside.

    Afterwards the two are tied again if they are still equal; else the configuration says untied.
    """
    if not is_tied(model):
        yield
        return
    import torch

    configs = _find_tied_configs(model)
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    with warnings.catch_warnings():
        # PEFT warns about exactly what is done here.
        warnings.filterwarnings("ignore", ".*no longer tied after merging", UserWarning)
        yield
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if torch.equal(head.weight, embedding.weight):
        head.weight = embedding.weight
    _set_tie_flag(model, configs, is_tied(model))


def ignore_tie_warnings() -> None:
    """Silence PEFT's warnings about adapters on a tied weight, which exports handle."""
    for message in (r"Model (has|with) `tie_word_embeddings", "Setting `save_embedding_layers`"):
        warnings.filterwarnings("ignore", message, UserWarning)


def _find_tied_configs(model: Any) -> list[Any]:
    """Return the configurations that call the head tied: the model's, and its text part's."""
    configs = (model.config, model.config.get_text_config())
    return [config for config in configs if getattr(config, "tie_word_embeddings", False)]


def _set_tie_flag(model: Any, configs: list[Any], tied: bool) -> None:
    """Set the tie flag in the configurations and update the model's tied keys."""
    for config in configs:
        config.tie_word_embeddings = tied
    if configs:  # transformers reads these keys for a loaded model
        model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)

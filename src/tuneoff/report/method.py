"""How each contender was tuned, in a few words, from the run's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuneoff.results import Results


def describe_methods(results: Results) -> dict[str, str]:
    """Return contender name → method (`LoRA r 16, all linear layers`, `prompted, 5 shots`).

    The settings come from a file that may be older than this code, so every key may be missing.
    Without settings the contender's id is the method.
    """
    settings = {
        entry.get("name"): entry
        for entry in results.settings.get("contenders") or ()
        if isinstance(entry, Mapping)
    }
    task = results.settings.get("task") or {}
    return {
        c.name: _describe_method(c.id, settings.get(c.name) or {})
        + _describe_prompt(settings.get(c.name) or {}, task)
        for c in results.contenders
    }


def _describe_method(kind: str, settings: Mapping[str, Any]) -> str:
    """Return how a contender was tuned, without its prompt."""
    if kind == "local" and settings.get("method") == "lora":
        return _describe_lora(settings.get("lora") or {}) + _describe_quantization(settings)
    if kind == "local" and settings.get("method") == "full":
        return "all parameters"
    if kind == "hosted" and settings.get("provider"):
        return f"tuned by {settings['provider']}{_describe_sampling(settings)}"
    if kind == "prompted":
        shots = settings.get("shots") or 0
        how = f"prompted, {shots} shot{'s' * (shots > 1)}" if shots else "prompted only"
        return how + _describe_sampling(settings)
    return kind


def _describe_sampling(settings: Mapping[str, Any]) -> str:
    """Return at which temperature, and how often, a provider's model was asked."""
    temperature, samples = settings.get("temperature"), settings.get("samples") or 1
    shown = "" if temperature is None else f", temperature {temperature:g}"
    return shown + (f", {samples} answers each" if samples > 1 else "")


def _describe_prompt(settings: Mapping[str, Any], task: Mapping[str, Any]) -> str:
    """Return whether the instruction was dropped: the contender decides, then the task."""
    short = (settings.get("prompt") or task.get("prompt")) == "short"
    return ", short prompt" if short else ""


def _describe_lora(lora: Mapping[str, Any]) -> str:
    """Return the adapter's rank and layers."""
    where = lora.get("target_modules")
    named = where.replace("-", " ") if isinstance(where, str) else ", ".join(where or ())
    layers = {"all linear": "all linear layers", "attention": "attention layers"}.get(named, named)
    rank = f"LoRA r {lora['r']}" if "r" in lora else "LoRA"
    return f"{rank}, {layers}" if layers else rank


def _describe_quantization(settings: Mapping[str, Any]) -> str:
    """Return how the base was quantized; empty if it was not."""
    quantization = settings.get("quantization", "none")
    return "" if quantization == "none" else f", {quantization} base"

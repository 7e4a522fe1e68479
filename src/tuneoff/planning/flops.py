"""Training time on an accelerator, from the operations to compute.

A forward pass multiplies every token with every weight (2 operations each) and attends to the
tokens before it. The backward pass takes as much again for the activations, and once more for the
gradients of trained weights. Checkpointing computes the forward pass twice (Kaplan et al. 2020,
without their approximation of attention).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneoff.config.contenders import LocalConfig
from tuneoff.models.parameters import Parameters

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# Share of an accelerator's peak that training reaches. The seed's own hours on an A40 come to 40%
# (SQL) and 55% (ViGGO), with checkpointing counted, padding and validation left out.
UTILIZATION = 0.35
TERA = 1e12


@dataclass(frozen=True, slots=True)
class TokenOperations:
    """Floating-point operations per token."""

    training: float
    """In training."""
    forward: float
    """In a forward pass alone."""

    def seconds(
        self, trained_tokens: float, validated_tokens: float, peak_teraflops: float
    ) -> float:
        """Return the seconds on an accelerator of this peak, at `UTILIZATION` of it."""
        operations = self.training * trained_tokens + self.forward * validated_tokens
        return operations / (peak_teraflops * TERA * UTILIZATION)


def count_operations(
    config: PretrainedConfig, settings: LocalConfig, parameters: Parameters, length: float
) -> TokenOperations:
    """Return the operations per token in examples of this mean length.

    The head counts although only learned tokens pass through it; this errs on the safe side.
    """
    text = config.get_text_config()
    head = text.vocab_size * text.hidden_size
    multiplied = sum(matrix.size for matrix in parameters.linear) + head
    heads = text.num_attention_heads
    width = heads * (getattr(text, "head_dim", None) or text.hidden_size // heads)
    # Queries with keys and weights with values, over half the length on average.
    attended = 4 * text.num_hidden_layers * width * length / 2
    adapter = parameters.adapter(settings.lora.r) if settings.method == "lora" else 0
    forward = 2 * (multiplied + adapter) + attended
    gradients = 2 * (multiplied if settings.method == "full" else adapter)
    again = forward if settings.train.gradient_checkpointing else 0
    return TokenOperations(training=2 * forward + gradients + again, forward=forward)

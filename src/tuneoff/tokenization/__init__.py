"""From text to token ids: what a base's chat template renders, and how it is tokenized."""

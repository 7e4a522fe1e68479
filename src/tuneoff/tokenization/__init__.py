"""Turns text into token ids: chat templates, their adaptation, and safe encoding of data."""

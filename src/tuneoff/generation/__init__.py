"""Answering prompts with open models."""

"""Hosted APIs: one file each."""

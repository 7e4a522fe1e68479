"""Metrics: from predictions and references to scores, with intervals and paired tests."""

"""Ranks, metrics, intervals and the report."""

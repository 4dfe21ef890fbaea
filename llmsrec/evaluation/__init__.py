"""Metrics for each user, intervals and simple rankers.

Imported by report, comparison, serving and stages.
"""

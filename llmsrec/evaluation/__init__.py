"""Metrics for each user, intervals and simple rankers.

Imported by report, systems, studies, serving and stages.
"""

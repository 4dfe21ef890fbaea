"""Fetch or generate the raw files of a dataset.

Imported by arrivals and stages.
"""

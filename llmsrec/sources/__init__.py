"""Fetch or generate the raw files of a dataset.

Imported by stages and arrivals.
"""

"""The ranker protocol, its evaluation and its metrics.

Imported by everything that ranks or trains.
"""

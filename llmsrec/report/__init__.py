"""The evaluation report: groups, probes, gates, plots, pages.

Imported by the evaluation stage and studies.
"""

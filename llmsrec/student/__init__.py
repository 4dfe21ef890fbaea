"""LLM-SRec: configuration, model, losses, training, ranker.

Imported by serving, report, systems and stages.
"""

"""LLM-SRec itself: configuration, model with save and load, distillation and uniformity losses, training.

Imported by serving, report, systems and stages.
"""

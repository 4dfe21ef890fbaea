"""The language model of every prompt-based system: weights, prompts, soft prompts, heads, retrieval model and ranker.

Imported by finetuning, student, generation, backbones, serving, report and systems.
"""

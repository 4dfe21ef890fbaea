"""The language model: weights, prompts, soft prompts, caches, heads.

Imported by the student, generation, backbones and systems.
"""

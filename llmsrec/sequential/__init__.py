"""SASRec, the teacher, and what other sequential networks share with it: interface, losses, trainer, ranker.

Imported by llm, finetuning, student, serving and systems.
"""

"""SASRec and what other sequential networks share with it.

Imported by the student, serving and systems.
"""

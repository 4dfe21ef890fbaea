"""The recommender: teacher, student and item texts as one weighted sum of scores.

Imported by report, systems, serving, stages and benchmarks.
"""

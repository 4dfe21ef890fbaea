"""The recommender: teacher, student and item texts as one weighted sum of scores.

Imported by systems, serving, the API, stages and benchmarks.
"""

"""The recommender: teacher, student and item texts as one weighted sum of scores.

Imported by serving, the API, stages and benchmarks.
"""

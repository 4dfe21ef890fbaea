"""Raw files to interactions and item texts.

Imported by the ingest stage and arrivals.
"""

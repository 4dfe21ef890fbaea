"""Raw files to typed interactions and item texts.

Imported by the ingest stage and arrivals.
"""

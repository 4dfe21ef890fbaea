"""What models read: item catalog, histories, splits.

Imported by everything that ranks or trains.
"""

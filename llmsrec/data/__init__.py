"""From raw files to validated splits."""

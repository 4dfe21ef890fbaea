"""RECFORMER: items and users as texts that one Longformer reads (SPEC 4.4)."""

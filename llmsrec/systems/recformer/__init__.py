"""RECFORMER: items and users as texts that one Longformer reads (specification 4.4)."""

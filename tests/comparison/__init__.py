"""Tests of llmsrec.comparison."""

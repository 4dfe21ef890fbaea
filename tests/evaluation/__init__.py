"""Tests of llmsrec.evaluation; a package, so that files of one name may stand in several folders."""

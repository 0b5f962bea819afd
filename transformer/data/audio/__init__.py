"""Recordings: their files, and the transcripts that belong to them."""

"""Recordings: files, transcripts, features and batches."""

"""Texts with labels: tables, tagged words, questions with answers."""

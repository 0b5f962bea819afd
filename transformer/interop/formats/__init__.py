"""File formats of published weights."""

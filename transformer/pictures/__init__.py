"""Everything a person looks at that matplotlib draws."""

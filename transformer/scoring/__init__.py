"""How good outputs are: the scores of each field, as its users define them."""

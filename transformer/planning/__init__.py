"""What training would take, found out without training."""

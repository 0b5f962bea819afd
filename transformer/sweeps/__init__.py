"""Many runs of one config: what differs between them, who trains which, what came of it."""

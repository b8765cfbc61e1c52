"""Training data: rendered faces, face sets and verification pairs."""

"""Variants that reproduce older implementations bit for bit; production ops never import them."""

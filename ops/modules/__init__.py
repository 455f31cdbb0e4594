"""The torch modules that declarations lower to, one family a file, under the family's name."""

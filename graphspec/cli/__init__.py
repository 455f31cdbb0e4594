"""The roof: one small file a command; the only reader of argv."""

"""The shipped models and, under std/, the standard blocks."""

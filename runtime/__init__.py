"""What runs a compiled spec: data, training, sampling, checkpoints."""

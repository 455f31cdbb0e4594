"""The passes: Document + catalogue -> typed Graph -> proofs -> plan -> torch.fx modules. Names no op."""

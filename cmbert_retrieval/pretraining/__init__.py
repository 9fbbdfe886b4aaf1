"""Pretraining: readers -> token shards with a weight a token -> packed rows -> masking -> ModernBERT."""

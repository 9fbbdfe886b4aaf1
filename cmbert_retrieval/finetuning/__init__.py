"""From a pretrained encoder to one that searches: pairs, negatives, a teacher, contrastive training."""

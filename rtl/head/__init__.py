"""From the last hidden vector to a token: scores, greedy choice, best candidates."""

"""From a model's shape to tiles, stream order and command program."""

"""The int8 array that attention and head share."""

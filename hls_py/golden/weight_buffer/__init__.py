"""The weight stream as bytes."""

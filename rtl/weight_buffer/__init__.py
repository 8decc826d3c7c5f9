"""From memory to the engine: the weight stream's buffers."""

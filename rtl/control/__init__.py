"""Registers, pass loading, the command sequencer, semaphores, and the supervisor that stops and restarts all."""

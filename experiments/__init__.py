"""Experiments: configuration and order of work only."""

"""Regions replaced by cheaper ones, and their weights solved again."""

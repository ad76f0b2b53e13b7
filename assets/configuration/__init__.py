"""Domains and profiles: typed settings, read from YAML."""

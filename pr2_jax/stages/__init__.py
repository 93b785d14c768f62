"""Stages: each reads artifacts of earlier ones and writes one directory."""

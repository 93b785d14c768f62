"""Trained towers of a small catalogue, as the encoders' tests have them."""

from tests.encoders.conftest import catalogue, content, fresh, sizes

__all__ = ["catalogue", "content", "fresh", "sizes"]

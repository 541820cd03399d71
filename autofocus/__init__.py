"""Autofocus for Micro-Manager microscopes: the layer that joins search, devices and models."""

__version__ = "0.1.0"

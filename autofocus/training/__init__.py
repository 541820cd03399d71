"""Encoders pretrained without labels, heads fitted on them, and the report of both."""

"""Frozen eyes: landmark files, crops, alignment and recognition features."""

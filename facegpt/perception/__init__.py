"""Frozen eyes: images and landmark files, crops, alignment, recognition features, skin."""

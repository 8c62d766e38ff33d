"""facegpt: a vision-language model that speaks in 3D faces."""

__version__ = "0.2.0"

"""Exceptions with one type per cause; each message names the file or sample and says what to do."""


class FaceGPTError(Exception):
    """Base of every error that bad input can raise."""


class HeadFileError(FaceGPTError):
    """A head file is missing, broken, hostile or of an unknown format."""


class HeadMismatchError(FaceGPTError):
    """A checkpoint or data set was made with another head model."""


class CheckpointError(FaceGPTError):
    """A checkpoint is missing, incomplete or does not fit the model."""


class ConfigError(FaceGPTError):
    """A configuration has an unknown key or an impossible value."""


class SampleError(FaceGPTError):
    """A training sample or conversation cannot be used as it is."""


class ImageError(SampleError):
    """An image is missing, truncated or too large to decode."""


class LandmarkError(SampleError):
    """Landmarks are missing, of another length or not finite."""


class MissingPartError(FaceGPTError):
    """A part that is fetched is not in the cache, or cannot be had."""


class TrainingError(FaceGPTError):
    """Training cannot go on."""


class RenderingError(FaceGPTError, ValueError):
    """Numbers that cannot be drawn, such as face parameters that are not finite, or an impossible request."""


class RunFinished(FaceGPTError):
    """A run that is to be resumed has nothing left to do; no failure, so that a retry loop ends."""

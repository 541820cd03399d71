"""Frames as files a browser or ImageJ opens."""

from __future__ import annotations

import io
import json

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from devices import Frame

# Ignores hot pixels and dead columns when the contrast is stretched.
_CONTRAST_PERCENTILES = (0.1, 99.9)


def preview_png(image: NDArray[np.generic]) -> bytes:
    """A frame stretched to 8 bit for the eye, as PNG; its counts are not the camera's.

    Parameters
    ----------
    image : ndarray of shape (height, width), any numeric dtype
    """
    counts = image.astype(np.float32)
    low, high = np.percentile(counts, _CONTRAST_PERCENTILES)
    scale = 255.0 / (high - low) if high > low else 0.0
    grey = np.clip((counts - low) * scale, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, format="PNG")
    return buffer.getvalue()


def raw_tiff(frame: Frame) -> bytes:
    """A frame with the camera's own counts as TIFF; z, exposure and binning in its description."""
    settings = {"z_um": frame.z_um, "exposure_ms": frame.exposure_ms, "binning": frame.binning}
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, frame.image, description=json.dumps(settings))
    return buffer.getvalue()

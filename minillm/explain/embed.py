"""A matplotlib Figure as an <img> that needs no second file: the picture is inside the page as a data: address."""

from __future__ import annotations

import base64
import io
import re
import struct
from typing import Any

from minillm.explain.markup import escape
from minillm.explain.style import styled

PIXELS_PER_INCH = 96  # CSS
DENSITY = 2  # PNG pixels per CSS pixel: sharp on dense screens
MANY_MARKS = 1000  # scatter points past which an SVG is larger than a PNG
SMALLEST = 0.64  # of its size: a narrower screen scrolls the picture instead of shrinking its text away


def _prefers_png(fig: Any) -> bool:
    """Images and crowded scatters are smaller as PNG; lines and bars are sharper and smaller as SVG."""
    marks = sum(len(c.get_offsets()) for ax in fig.axes for c in ax.collections)
    return marks > MANY_MARKS or any(ax.images for ax in fig.axes)


@styled
def figure_bytes(fig: Any, raster: bool | None = None) -> tuple[bytes, str, float, float]:
    """(file contents, media type, width, height in CSS pixels). raster: PNG or SVG; None chooses by the contents."""
    buffer = io.BytesIO()
    raster = _prefers_png(fig) if raster is None else raster
    if raster:
        fig.savefig(buffer, format="png", dpi=PIXELS_PER_INCH * DENSITY, bbox_inches="tight", pad_inches=0.06)
        data = buffer.getvalue()
        width, height = struct.unpack(">II", data[16:24])  # the PNG header
        return data, "image/png", width / DENSITY, height / DENSITY
    fig.savefig(buffer, format="svg", bbox_inches="tight", pad_inches=0.06, metadata={"Date": None, "Creator": None})
    data = buffer.getvalue()
    size = re.search(rb'<svg[^>]*?\swidth="([\d.]+)pt"', data), re.search(rb'<svg[^>]*?\sheight="([\d.]+)pt"', data)
    if None in size:
        raise ValueError("this matplotlib writes SVG without a size in points; use raster=True")
    width, height = (float(found[1]) * PIXELS_PER_INCH / 72 for found in size)  # type: ignore[index]
    return data, "image/svg+xml", width, height


def image_tag(fig: Any, alt: str, raster: bool | None = None) -> str:
    """The Figure as one HTML <img> element with `alt` as its text for those who cannot see it."""
    data, media, width, height = figure_bytes(fig, raster)
    address = f"data:{media};base64,{base64.b64encode(data).decode('ascii')}"
    keep = f"min-width:{SMALLEST * width:.0f}px"
    text = escape(" ".join(alt.split()))
    return f'<img src="{address}" alt="{text}" width="{width:.0f}" height="{height:.0f}" style="{keep}">'

"""What notebooks with widgets share: whether somebody is there to use them, and pictures as HTML.

ipywidgets are imported where they are made: the library does without notebook packages.
"""

from __future__ import annotations

import base64
import html
import io
import os

from matplotlib.figure import Figure
from PIL import Image

from vlp_lib.errors import in_jupyter


def by_hand() -> bool:
    """Whether a person has the notebook before them, in JupyterLab or as a page of Voilà's; papermill executes it."""
    voila = os.environ.get("SERVER_SOFTWARE", "").startswith("voila")
    return voila or in_jupyter()


def image_tag(picture: Figure | Image.Image, words: str, style: str = "max-width:100%") -> str:
    """A figure or picture as an HTML image that says in words what it shows."""
    buffer = io.BytesIO()
    if isinstance(picture, Figure):
        picture.savefig(buffer, format="png", dpi=110)
    else:
        picture.save(buffer, format="png")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{html.escape(words)}" style="{style}">'


def paragraph(text: object, tint: str = "inherit") -> str:
    """Plain text as an HTML paragraph, in a colour."""
    return f'<p style="color:{tint}">{html.escape(str(text))}</p>'

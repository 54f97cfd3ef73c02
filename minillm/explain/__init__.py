"""Pictures of what a model learned, and a report page that holds them.

Every function takes plain NumPy arrays, dicts and strings; each figure function returns a `matplotlib.figure.Figure`.
Matplotlib and rich load when the first picture or table is made.
"""

from __future__ import annotations

from minillm.explain.attention import attention_maps, attention_over_image
from minillm.explain.curves import loss_curves
from minillm.explain.images import image_grid, reconstructions, traversals, weights_as_images
from minillm.explain.latent import latent_map, project_to_plane
from minillm.explain.metric import Metric
from minillm.explain.report import Report
from minillm.explain.summary import metric_rows, terminal_table
from minillm.explain.text import next_token_bars

__all__ = [
    "Metric",
    "Report",
    "attention_maps",
    "attention_over_image",
    "image_grid",
    "latent_map",
    "loss_curves",
    "metric_rows",
    "next_token_bars",
    "project_to_plane",
    "reconstructions",
    "terminal_table",
    "traversals",
    "weights_as_images",
]

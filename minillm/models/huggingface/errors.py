"""The one error of the Hugging Face files."""

from __future__ import annotations

from ...data.errors import DataError


class HubError(DataError):
    """A folder that holds no model that can be read, or a model that the format cannot hold: what, why, what to do."""

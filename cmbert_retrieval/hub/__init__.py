"""The Hugging Face hub: from a repository's id to a folder with the files of one commit.

What is fetched lies in the hub's own cache (``cache_folder``, else ``HF_HUB_CACHE`` or ``HF_HOME``), which
the whole ecosystem shares. A commit that is there whole is opened without asking anybody. Nobody is asked
with ``local_files_only`` or ``HF_HUB_OFFLINE=1``. A hub that gives no answer within a few seconds is given
up, and a branch or tag that was fetched before is taken as it was then, with a warning.
"""

from __future__ import annotations

from cmbert_retrieval.hub.cache import Hub
from cmbert_retrieval.hub.errors import HubError, explaining, why_offline
from cmbert_retrieval.hub.repository import Repository, find_repository, is_hub_id

__all__ = [
    "Hub",
    "HubError",
    "Repository",
    "explaining",
    "find_repository",
    "is_hub_id",
    "why_offline",
]

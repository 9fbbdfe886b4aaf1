"""What the tests of readers share."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

HEADER = (
    "Article File,Article Citation,AccessionID,LastUpdated (YYYY-MM-DD HH:MM:SS),PMID,License,Retracted\n"
)


@pytest.fixture
def make_archive(tmp_path: Path) -> Callable[..., Path]:
    """Write a bulk archive with its file list; members are (name, bytes) or ready headers."""

    def make(
        members: Iterable[tuple[str, bytes] | tarfile.TarInfo],
        *,
        name: str = "oa_comm_xml.PMC000xxxxxx.baseline.2024-06-18.tar.gz",
        filelist: str | None = None,
    ) -> Path:
        path = tmp_path / name
        with tarfile.open(path, "w:gz" if name.endswith("gz") else "w") as tar:
            for member in members:
                if isinstance(member, tarfile.TarInfo):
                    tar.addfile(member)
                else:
                    info = tarfile.TarInfo(member[0])
                    info.size = len(member[1])
                    tar.addfile(info, io.BytesIO(member[1]))
        if filelist is not None:
            path.with_name(name.removesuffix(".tar.gz") + ".filelist.csv").write_text(HEADER + filelist)
        return path

    return make

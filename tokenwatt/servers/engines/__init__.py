"""Inference engines as data: one entry an engine.

To add an engine: its entry in a file of its own here, its name in ``ENGINES``, and a page that its real server gave, in the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from tokenwatt.servers.engines.aphrodite import APHRODITE
from tokenwatt.servers.engines.description import Engine
from tokenwatt.servers.engines.dynamo import DYNAMO
from tokenwatt.servers.engines.kserve import KSERVE
from tokenwatt.servers.engines.lemonade import LEMONADE
from tokenwatt.servers.engines.llamacpp import LLAMACPP
from tokenwatt.servers.engines.lmdeploy import LMDEPLOY
from tokenwatt.servers.engines.localai import LOCALAI
from tokenwatt.servers.engines.mistralrs import MISTRALRS
from tokenwatt.servers.engines.nim import NIM
from tokenwatt.servers.engines.not_metered import NOT_METERED
from tokenwatt.servers.engines.ray import RAY
from tokenwatt.servers.engines.sglang import SGLANG
from tokenwatt.servers.engines.tei import TEI
from tokenwatt.servers.engines.tgi import TGI
from tokenwatt.servers.engines.triton import TRITON
from tokenwatt.servers.engines.trtllm import TRTLLM
from tokenwatt.servers.engines.vllm import VLLM
from tokenwatt.servers.engines.xinference import XINFERENCE

_IN_ORDER: Final = (
    DYNAMO,
    TRITON,
    KSERVE,
    XINFERENCE,
    VLLM,
    SGLANG,
    LLAMACPP,
    TRTLLM,
    TGI,
    TEI,
    LMDEPLOY,
    RAY,
    APHRODITE,
    LOCALAI,
    LEMONADE,
    MISTRALRS,
    # Its names are the plainest of all, or those of another engine: only when nothing else fits.
    NIM,
)

ENGINES: Final[Mapping[str, Engine]] = MappingProxyType({e.name: e for e in _IN_ORDER})
"""By name, in the order in which a page is tried: those that pass on the counters of another engine come before it."""

__all__ = ["ENGINES", "NOT_METERED", "Engine"]

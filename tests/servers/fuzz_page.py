"""Spoilt pages for the page reader: ``python -m tests.servers.fuzz_page SECONDS [SEED]``.

Each page is one of pages/, spoilt by a seed of its own: as long as those are the same, a seed makes the same page. Of every one must hold:
nothing but ``Unusable`` is raised, it is soon done with, and a page that is taken says what prometheus_client reads of its lines.
"""

from __future__ import annotations

import random
import re
import sys
import time
from collections.abc import Callable
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from tests.servers.conftest import PAGES
from tokenwatt.servers.engines import ENGINES
from tokenwatt.servers.errors import Unusable
from tokenwatt.servers.page.counters import read_counters, scheme_of, wanted
from tokenwatt.servers.page.exposition import Labels, Page, read

BODIES: Final = [path.read_bytes() for path in sorted(PAGES.glob("*.txt"))]
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0"
WANTED: Final = wanted(ENGINES.values())
_NAMES: Final = {name.replace(":", "_"): name for name, type_ in WANTED.types.items() if type_ != "mark"}
_NAME: Final = re.compile(rb"[ \t]*([a-zA-Z_:][a-zA-Z0-9_:]*)")
_TO_EXEMPLAR: Final = re.compile(rb'((?:[^"#]|"(?:[^"\\]|\\.)*")*)#')
_NUMBER: Final = re.compile(rb"(?<= )[0-9.e+]+(?=\n)")
_NUMBERS: Final = [*b"NaN +Inf -1 0x1 1_0 1e308 1e-400 9223372036854775808".split(), b"9" * 5000, b"0." + b"3" * 5000, b"5 6 7", b""]
_PIECES: Final = [*(bytes([n]) for n in b"\0\xff\x85\x0b\r\n\t {}\"\\#,="), b"# TYPE ", b"# EOF\n", b'a="b",', b"\xc2\xa0"]


def _spoil_bytes(rng: random.Random, body: bytes) -> bytes:
    spoilt = bytearray(body)
    for _ in range(rng.randint(1, 20)):
        spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
    return bytes(spoilt)


def _insert(rng: random.Random, body: bytes) -> bytes:
    at = rng.randrange(len(body) + 1)
    return body[:at] + rng.choice(_PIECES) * rng.choice([1, 1, 1, 2, 5000]) + body[at:]


def _cut(rng: random.Random, body: bytes) -> bytes:
    at = rng.randrange(len(body))
    return body[:at] + (b"" if rng.random() < 0.3 else body[at + rng.randint(1, 60) :])


def _move_lines(rng: random.Random, body: bytes) -> bytes:
    lines = body.splitlines(keepends=True)
    for _ in range(rng.randint(1, 5)):
        line = rng.choice(lines)
        if rng.random() < 0.5:
            lines.insert(rng.randrange(len(lines)), line)
        elif len(lines) > 1:
            lines.remove(line)
    return b"".join(lines)


def _renumber(rng: random.Random, body: bytes) -> bytes:
    return _NUMBER.sub(lambda m: rng.choice(_NUMBERS) if rng.random() < 0.1 else m[0], body)


def _respell(rng: random.Random, body: bytes) -> bytes:
    return body.replace(b":", b"_") if rng.random() < 0.5 else re.sub(rb"[:_]", lambda m: rng.choice([b":", b"_", m[0]]), body)


def _retype(rng: random.Random, body: bytes) -> bytes:
    types = [b"counter", b"gauge", b"histogram", b"summary", b"untyped", b"unknown", b"stateset", b""]
    return re.sub(rb"(?m)(?<= )(counter|gauge|histogram)$", lambda m: rng.choice(types) if rng.random() < 0.2 else m[0], body)


def _escape(rng: random.Random, body: bytes) -> bytes:
    value = rng.choice([b"\\\\", b'\\"', b"\\n", b"\\x", b"}", b"{", b",", "ü".encode(), b"\\"]) * rng.choice([1, 3, 1000])
    return re.sub(rb'(?<==")', lambda m: value if rng.random() < 0.1 else m[0], body)


def _splice(rng: random.Random, body: bytes) -> bytes:
    other = rng.choice(BODIES)
    return body[: rng.randrange(len(body))] + other[rng.randrange(len(other)) :]


_Way = Callable[[random.Random, bytes], bytes]
_WAYS: Final[list[_Way]] = [_spoil_bytes, _insert, _cut, _move_lines, _renumber, _respell, _retype, _escape, _splice]


def spoilt_page(seed: int) -> tuple[bytes, str]:
    """A page and its content type."""
    rng = random.Random(seed)
    body = rng.choice(BODIES)
    for _ in range(rng.randint(1, 4)):
        body = rng.choice(_WAYS)(rng, body) or b"\n"
    if rng.random() < 0.7 and not body.endswith(b"\n"):
        body += b"\n"  # else most would be refused for that alone
    return body, rng.choice(["text/plain; version=0.0.4", "", OPENMETRICS])


def check(seed: int) -> bool:
    """Read one page. Whether it was taken.

    Raises:
        AssertionError: the reader is wrong about it.
    """
    body, content_type = spoilt_page(seed)
    started = time.process_time()
    try:
        page = read(body, WANTED, content_type)
        _read_by_each_engine(page)
    except Unusable:
        page = None
    took_s = time.process_time() - started
    assert took_s < 0.25 + len(body) * 4e-6, f"seed {seed}: {len(body)} bytes took {took_s:.2f} s"
    if page is not None:
        _compare(seed, body, page)
    return page is not None


def _read_by_each_engine(page: Page) -> None:
    for engine in ENGINES.values():
        scheme = scheme_of(page, engine)
        if scheme is not None:
            try:
                counters = read_counters(page, engine, scheme)
            except Unusable:
                continue
            assert all(0 <= n < 2**63 for n in counters.tokens.values())


def _compare(seed: int, body: bytes, page: Page) -> None:
    theirs: dict[str, list[tuple[Labels, str]]] = {}
    for line in body.split(b"\n"):
        match = _NAME.match(line)
        name = _NAMES.get(match[1].replace(b":", b"_").decode()) if match else None
        if name is None:
            continue
        try:
            exemplar = _TO_EXEMPLAR.match(line)  # which the parser of text does not know
            text = exemplar[1] if exemplar else line
            ((sample,),) = [family.samples for family in text_string_to_metric_families(text.decode())]
            value = float(sample.value) + 0.0  # for it, -0 is 0
        except OverflowError:
            return  # theirs: a whole number that no float holds, a timestamp too
        except (ValueError, IndexError) as e:
            raise AssertionError(f"seed {seed}: prometheus_client does not read {line!r}: {e}") from None
        theirs.setdefault(name, []).append((tuple(sorted(sample.labels.items())), repr(value)))
    ours = {name: [(s.labels, repr(s.value + 0.0)) for s in series] for name, series in page.samples.items()}
    for name in ours.keys() | theirs.keys():
        read_otherwise = f"seed {seed}: {name}: {ours.get(name)!r:.1000}, but prometheus_client reads {theirs.get(name)!r:.1000}"
        assert ours.get(name) == theirs.get(name), read_otherwise


def main(seconds: float, first_seed: int) -> None:
    """Read spoilt pages for so long."""
    end = time.monotonic() + seconds
    seed, taken = first_seed, 0
    while seed == first_seed or time.monotonic() < end:
        taken += check(seed)
        seed += 1
    sys.stdout.write(f"{seed - first_seed} pages from seed {first_seed} on, {taken} of them taken: nothing found\n")


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns())

"""Labels that tell people apart do not go further than the page."""

from __future__ import annotations

from hashlib import blake2s

from tests.servers.conftest import Make, good
from tests.servers.fake_server import FakeServer, answer


def test_labels_that_tell_people_apart_are_kept_as_digests(server: FakeServer, scraper: Make) -> None:
    names = ["ada.lovelace@example.com", "charles"]
    lines = [f'localai_tokens_total{{kind="completion",served_model="m",user="{name}"}} {n}\n' for n, name in enumerate(names, 5)]
    server.serve("/metrics", answer("".join(lines).encode()))
    first, again = (good(scraper(server.url, engine="localai").scrape()) for _ in range(2))
    assert sorted(first.counters.values()) == [5, 6]
    assert first.counters == again.counters
    assert not [name for name in (*names, "ada", "lovelace") if name in repr(first)]
    # It must not change: counters that are stored go on under it.
    digests = {blake2s(name.encode(), digest_size=8).hexdigest() for name in names}
    assert {key.labels for key in first.counters} == {f'kind="completion",user="{digest}"' for digest in digests}

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.servers.conftest import Make, bad, good
from tests.servers.fake_server import FakeServer, Reply, Request, answer, be_vllm, vllm_page


def test_the_key_is_sent_read_again_when_it_changes_and_never_shown(
    server: FakeServer, scraper: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    be_vllm(server)

    def guarded(request: Request) -> Reply:
        allowed = request.headers.get("authorization") == "Bearer second-secret"
        return answer(vllm_page()) if allowed else answer(b"", status="401 Unauthorized")

    for path in ("/metrics", "/metrics/"):
        server.serve(path, guarded)
    key = tmp_path / "key"
    key.write_text("first-secret\n")
    chat = scraper(server.url, api_key_file=key)
    failure = bad(chat.scrape())
    assert failure.reason == "HTTP 401 for /metrics: the key in api_key_file is not accepted"
    key.write_text("second-secret\n")
    reading = good(chat.scrape())
    assert not any(secret in caplog.text + repr(reading) + repr(failure) for secret in ("first-secret", "second-secret"))


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "cannot be read: No such file"), ("", "does not hold"), ("top secret\r\nX: y", "does not hold")]
)
def test_a_key_that_cannot_be_used_is_said_but_not_shown(
    content: str | None, reason: str, server: FakeServer, scraper: Make, tmp_path: Path
) -> None:
    be_vllm(server)
    key = tmp_path / "key"
    if content is not None:
        key.write_text(content)
    failure = bad(scraper(server.url, api_key_file=key).scrape())
    assert f"api_key_file {key} {reason}" in failure.reason
    assert "secret" not in failure.reason.replace(str(key), "")
    assert server.requests == []


def test_a_ca_file_that_cannot_be_used_is_said(server: FakeServer, scraper: Make, tmp_path: Path) -> None:
    https = server.url.replace("http:", "https:")
    assert "ca_file" in bad(scraper(https, ca_file=tmp_path / "none").scrape()).reason
    (tmp_path / "none").write_text("no certificate")
    assert "holds no certificate" in bad(scraper(https, ca_file=tmp_path / "none").scrape()).reason

"""A llama-server that reading keeps awake, in a process of its own: it is left alone while it does nothing."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from tests.servers.conftest import Make, good
from tokenwatt.servers.scrape import Scraper
from tokenwatt.servers.sleep import cpu_time_ns

# Counts how often its page was read; after /compute it has computed a token, and no request runs any more.
SERVER = """
import http.server, json, sys, time

class Llama(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    pages = tokens = 0

    def do_GET(self):
        at = type(self)
        if self.path == "/metrics":
            at.pages += 1
            names = ("llamacpp:prompt_tokens_total", "llamacpp:tokens_predicted_total")
            body = "".join(f"# TYPE {n} counter\\n{n} {at.tokens}\\n" for n in names) + "llamacpp:requests_processing 0\\n"
        elif self.path == "/props":
            body = json.dumps({"default_generation_settings": {}, "is_sleeping": False, "build_info": sys.argv[1]})
        elif self.path == "/pages":
            body = str(at.pages)
        elif self.path == "/compute":
            at.tokens += 1
            end = time.process_time() + 0.05
            while time.process_time() < end:
                pass
            body = ""
        else:
            body = json.dumps({"data": [{"id": "m", "owned_by": "llamacpp"}]})
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Llama)
print(server.server_port, flush=True)
server.serve_forever()
"""

Start = Callable[..., str]


@pytest.fixture
def llama() -> Iterator[Start]:
    """Starts servers of a build with options, and gives their urls."""
    running: list[subprocess.Popen[str]] = []

    def start(build: str, *options: str) -> str:
        running.append(subprocess.Popen([sys.executable, "-c", SERVER, build, *options], stdout=subprocess.PIPE, text=True))
        assert running[-1].stdout is not None
        return f"http://127.0.0.1:{int(running[-1].stdout.readline())}"

    yield start
    for each in running:
        each.kill()
        each.communicate()


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def pages_read(url: str, chat: Scraper, times: int) -> int:
    before = int(get(f"{url}/pages"))
    for _ in range(times):
        good(chat.scrape())
    return int(get(f"{url}/pages")) - before


@pytest.mark.parametrize("options", [("--sleep-idle-seconds", "300"), ("--sleep-idle-seconds=300",)])
def test_it_is_left_alone_while_it_does_nothing(options: tuple[str, ...], llama: Start, scraper: Make) -> None:
    url = llama("b9760-6ee0f6579", *options)
    chat = scraper(url)
    first = good(chat.scrape())
    assert pages_read(url, chat, 4) == 0
    held = good(chat.scrape())
    assert (held.counters, held.running, held.asleep) == (first.counters, 0, False)
    assert held.t_ns > first.t_ns


def test_work_is_seen_at_once(llama: Start, scraper: Make) -> None:
    url = llama("b9760-6ee0f6579", "--sleep-idle-seconds", "300")
    chat = scraper(url)
    good(chat.scrape())
    get(f"{url}/compute")
    assert set(good(chat.scrape()).counters.values()) == {1}


def test_in_the_end_it_is_read(llama: Start, scraper: Make) -> None:
    url = llama("b9760-6ee0f6579", "--sleep-idle-seconds", "300")
    chat = scraper(url)
    good(chat.scrape())
    assert chat._start.rest is not None
    chat._start.rest.read_ns -= 300 * 10**9
    assert pages_read(url, chat, 1) == 0
    chat._start.rest.read_ns -= 10**9
    assert pages_read(url, chat, 2) == 1


@pytest.mark.parametrize(
    ("build", "options"),
    [("b10760-abc", ("--sleep-idle-seconds", "300")), ("b9760-6ee0f6579", ()), ("b9760-6ee0f6579", ("--sleep-idle-seconds", "-1"))],
)
def test_who_is_not_kept_awake_by_it_is_read_each_time(build: str, options: tuple[str, ...], llama: Start, scraper: Make) -> None:
    url = llama(build, *options)
    chat = scraper(url)
    good(chat.scrape())
    assert pages_read(url, chat, 3) == 3


def test_there_is_no_cpu_time_of_nobody() -> None:
    assert cpu_time_ns(2**22 + 1) is None

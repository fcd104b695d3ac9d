"""Which programs may be asked whether they are an inference server, and which must not be, by their names.

A request disturbs who does not expect it: sshd and Redis log it as an attack, a rendezvous of ranks may stumble over it. So nobody is asked
who is not known to serve models, does not run Python (most engines do), and does not hold a GPU or belong to who holds one. And some are
not asked even then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from tokenwatt.procfs import Process

Standing = Literal["serves", "python", "never", "other"]
"""Known to serve models; runs Python; is never asked; is asked where it belongs to who holds a GPU."""

SERVES: Final[Mapping[str, tuple[int, ...]]] = {
    # Names of executables, scripts and Python modules, with the ports they listen on by default (for processes that hide their sockets).
    "vllm": (8000,),
    "sglang": (30000,),
    "sglang_router": (30000,),
    "smg": (30000,),
    "llama-server": (8080,),
    "text-generation-router": (3000, 80, 9000),
    "text-generation-launcher": (3000, 80, 9000),
    "text-embeddings-router": (3000, 80, 9000),
    "tritonserver": (8002, 8000),
    "trtllm-serve": (8000,),
    "tensorrt_llm": (8000,),
    "dynamo": (8000, 8081),
    "lmdeploy": (23333,),
    "ray": (),
    "huggingfaceserver": (8080,),
    "kserve": (8080,),
    "aphrodite": (2242,),
    "xinference": (9997,),
    "xinference-local": (9997,),
    "xinference-worker": (),
    "local-ai": (8080,),
    "localai": (8080,),
    "lemonade": (13305,),
    "lemonade-server": (13305,),
    "lemonade-router": (13305,),
    "lemond": (13305,),
    "mistralrs": (1234,),
    "mistralrs-server": (1234,),
    "nim": (8000,),
    "nim_llm": (8000,),
    "ollama": (11434,),
    "mlc_llm": (8000,),
    "koboldcpp": (5001,),
    "tabbyapi": (5000,),
    "lm-studio": (1234,),
    "llmster": (1234,),
}

NEVER: Final = frozenset(
    {
        # Log-ins, and programs that let others in.
        "sshd", "sshd-session", "ssh", "dropbear", "telnetd", "login", "xrdp",
        # Databases, queues, stores.
        "postgres", "postmaster", "pgbouncer", "mysqld", "mariadbd", "mongod", "mongos", "redis-server", "valkey-server", "keydb-server",
        "memcached", "etcd", "consul", "zookeeper", "java", "nats-server", "rabbitmq-server", "beam.smp", "epmd", "kafka", "cassandra",
        "clickhouse", "clickhouse-server", "influxd", "qdrant", "milvus", "weaviate", "minio", "elasticsearch", "opensearch",
        "glusterfsd", "ceph-osd", "ceph-mon", "ceph-mgr", "rpcbind", "rpc.statd", "nfsd", "smbd", "slapd", "named", "unbound", "dnsmasq",
        "systemd-resolved", "chronyd", "ntpd", "cupsd", "exim4", "master", "sendmail",
        # What forwards to other servers: it repeats their pages, and what it repeats would be counted twice.
        "docker-proxy", "rootlessport", "rootlesskit", "slirp4netns", "pasta", "pasta.avx2", "passt", "gvproxy", "conmon", "socat",
        "nginx", "haproxy", "envoy", "traefik", "caddy", "httpd", "apache2", "pilot-agent", "linkerd2-proxy", "litellm", "kubectl",
        "cloudflared", "ngrok", "frpc", "frps", "stunnel", "stunnel4", "squid", "tailscaled", "kube-proxy",
        # Nodes, containers, clusters, schedulers.
        "systemd", "init", "dockerd", "containerd", "containerd-shim", "containerd-shim-runc-v2", "crio", "podman", "kubelet", "k3s",
        "kube-apiserver", "slurmd", "slurmctld", "slurmstepd", "munged", "nvidia-persistenced", "nv-hostengine", "dcgm-exporter",
        "node_exporter", "prometheus", "grafana", "grafana-server", "telegraf",
        "otelcol", "fluent-bit", "nvidia-cuda-mps-server", "nvidia-cuda-mps-control",
        # Workshops: a notebook has a key in its log, and its kernels' ports are none of HTTP.
        "jupyter", "jupyter-lab", "jupyter-notebook", "jupyterhub", "jupyterhub-singleuser", "jupyter_server", "jupyterlab", "notebook",
        "ipykernel", "ipykernel_launcher", "code-server", "tensorboard", "debugpy", "wandb", "wandb-core", "wandb-service", "cursor",
        "node", "supervisord", "celery", "gdb", "gdbserver", "mpirun", "orted", "prted",
        # Training, whose ranks talk to each other.
        "torchrun", "torch.distributed.run", "torch.distributed.launch", "deepspeed", "accelerate", "horovodrun",
        # Parts of engines that speak other things than HTTP, or serve pages that others show better.
        "raylet", "gcs_server", "text-generation-server", "triton_python_backend_stub", "tokenwatt",
    }
)  # fmt: skip

_INNER: Final = re.compile(r"(VLLM|APHRODITE)::(?!APIServer)|sglang::(?!http|tokenizer)|ray::(?!DashboardAgent|ProxyActor)")
"""Titles of engine processes that take requests from their own kind alone: workers, schedulers, coordinators."""

_PYTHON: Final = re.compile(r"python[0-9.]*|pypy[0-9.]*|uvicorn|gunicorn|hypercorn|granian")
_COMMAND_BYTES: Final = 15  # TASK_COMM_LEN, without its zero
_VALUED: Final = frozenset({"-W", "-X", "-Q", "--check-hash-based-pycs"})

LEADERS: Final = frozenset(
    {
        # Above these, processes have nothing in common but who started them.
        "systemd", "init", "dockerd", "containerd-shim", "containerd-shim-runc-v2", "runc", "crun", "conmon", "crio", "kubelet", "sshd",
        "sshd-session", "login", "su", "sudo", "tmux", "screen", "cron", "crond", "atd", "slurmstepd", "supervisord", "runsvdir",
        "s6-svscan", "jupyter-lab", "jupyter-notebook", "code-server", "gnome-shell", "pm2", "nomad", "make",
    }
)  # fmt: skip
_SHELLS: Final = frozenset({"sh", "bash", "dash", "zsh", "fish", "ksh", "ash"})


class Program(NamedTuple):
    """What a process is to us. ``name`` is the one it is known by, ``ports`` those it listens on by default."""

    standing: Standing
    name: str
    ports: tuple[int, ...] = ()


def program(process: Process) -> Program:
    """Judge a process by its names."""
    names = _names(process)
    shown = names[-1] if names else process.command
    if any(_INNER.match(name) or name in NEVER for name in names):
        return Program("never", shown)
    for name in names:
        owner = name.partition("::")[0].lower() if "::" in name else name  # VLLM::APIServer_0
        if (ports := SERVES.get(owner)) is not None:
            return Program("serves", name, ports)
    # What calls itself by another name, and was cut by the kernel.
    if _cut(process.command, NEVER) is not None:
        return Program("never", shown)
    if (cut := _cut(process.command, SERVES)) is not None:
        return Program("serves", cut, SERVES[cut])
    if any(_PYTHON.fullmatch(name) for name in names):
        return Program("python", shown)
    return Program("other", shown)


def leads(process: Process) -> bool:
    """Whether its children belong together no more than any processes do: an init, a log-in, a shell at which somebody types."""
    if process.pid == 1 or process.parent == 0:
        return True
    if any(name in LEADERS for name in _names(process)):
        return True
    # A shell with a script, or with -c, is a launcher.
    return is_shell(process) and all(word.startswith("-") and word != "-c" for word in process.words[1:])


def is_shell(process: Process) -> bool:
    """Whether it runs commands, the last of which it may become."""
    return bool(process.words) and _base(process.words[0]).lstrip("-") in _SHELLS


def _names(process: Process) -> list[str]:
    """The kernel's name of it, its program, and what a Python runs, without directories. Titles (``nginx: worker``) by their first word."""
    if not process.words:
        return []
    first = _base(process.words[0])
    names = [first] if first else []
    if len(process.command) < _COMMAND_BYTES and process.command not in names:
        names.append(process.command)
    if _PYTHON.fullmatch(first):
        names += _run_by_python(process.words[1:])
    return names


def _run_by_python(words: tuple[str, ...]) -> list[str]:
    """Of ``python -m a.b`` it is a.b and a, of ``python x/a.py`` a.py and a."""
    rest = iter(words)
    for word in rest:
        if word == "-m":
            module = next(rest, "")
            return [module, module.partition(".")[0]]
        if word == "-c":
            return []
        if word in _VALUED:
            next(rest, None)
        elif not word.startswith("-"):
            name = _base(word)
            return [name, name.removesuffix(".py")]
    return []


def _base(word: str) -> str:
    return word.split(" ")[0].rsplit("/", 1)[-1].rstrip(":")


def _cut(command: str, names: Mapping[str, object] | frozenset[str]) -> str | None:
    """The kernel cuts a name after 15 bytes."""
    if len(command) < _COMMAND_BYTES:
        return None
    return next((name for name in names if name[:_COMMAND_BYTES] == command), None)

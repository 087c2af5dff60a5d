# Sourced by the other scripts: finds a Python, makes an environment with the package in it, keeps it fresh.
#
#   environment FOLDER REQUIREMENT [--python 3.11] [--constraint FILE] [--also REQUIREMENT]
#
# makes FOLDER, or updates it when pyproject.toml or the arguments changed since. PYTHON=/path/to/python chooses the
# interpreter. uv is used where it is there, pip otherwise. Sets nothing but $ENVIRONMENT_PYTHON.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

EVERYTHING='.[all,jax]'  # what .venv holds: every extra that the tests and the scripts use

say() { printf '%s\n' "$*" >&2; }

# version PYTHON -> 3.11, or nothing where it does not run or cannot make environments
version() {
  "$1" -c 'import ensurepip, sys, venv; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true
}

# find_python [WANTED] -> path of a Python 3.11 to 3.13 (or of the WANTED version): the machine's own first
find_python() {
  local wanted="${1:-}" candidate found
  for candidate in ${PYTHON:-} python3 python python3.13 python3.12 python3.11 \
    "$HOME"/.pyenv/versions/3.1[123].*/bin/python "$HOME"/.local/share/uv/python/*/bin/python3 \
    /opt/homebrew/bin/python3.1[123] /usr/local/bin/python3.1[123]; do
    found="$(version "$candidate")"
    case "$found" in
      3.11 | 3.12 | 3.13) ;;
      *) continue ;;
    esac
    if [[ -z "$wanted" || "$found" == "$wanted" ]]; then
      "$candidate" -c 'import sys; print(sys.executable)'
      return
    fi
  done
  say "No Python ${wanted:-3.11 to 3.13} with the module venv was found: install one (Debian: also python3-venv)," \
    "or name it: PYTHON=/path/to/python $0"
  return 2
}

# digest WORDS... -> a hash of pyproject.toml, of files among the words, and of the words
digest() {
  {
    cat "$ROOT/pyproject.toml"
    for word in "$@"; do
      if [[ -f "$word" ]]; then cat "$word"; else printf '%s\n' "$word"; fi
    done
  } | "$ENVIRONMENT_PYTHON" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'
}

install() {
  # Like pip, compile what is installed: else, where bytecode is not kept, each process compiles TensorFlow anew, 5 s.
  # uv reads no pip.conf, so where it fails pip, which does, has the last word.
  if command -v uv >/dev/null && uv pip install --quiet --compile-bytecode --python "$ENVIRONMENT_PYTHON" "$@" 2>/dev/null; then
    return
  fi
  # pip tells every package of a local index that it did not take; its errors stay.
  PIP_DISABLE_PIP_VERSION_CHECK=1 "$ENVIRONMENT_PYTHON" -m pip install --quiet "$@" 2> >(grep -v ' is ignored' >&2)
}

environment() {
  local folder="$ROOT/$1" requirement="$2" wanted="" constraint="" also=() stamp python
  shift 2
  while (($#)); do
    case "$1" in
      --python) wanted="$2" ;;
      --constraint) constraint="$2" ;;
      --also) also+=("$2") ;;
    esac
    shift 2
  done
  ENVIRONMENT_PYTHON="$folder/bin/python"
  if ! "$ENVIRONMENT_PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then
    python="$(find_python "$wanted")" || return
    say "Making ${folder##*/} with $("$python" --version): some minutes the first time ..."
    "$python" -m venv --clear "$folder" || return
  fi
  stamp="$(digest "$requirement" "$constraint" "${also[@]+"${also[@]}"}")"
  if [[ "$(cat "$folder/groupvit-stamp" 2>/dev/null)" != "$stamp" ]]; then
    say "Installing $requirement ${also[*]+"${also[*]}"} into ${folder##*/} ..."
    (cd "$ROOT" && install -e "$requirement" "${also[@]+"${also[@]}"}" ${constraint:+--constraint "$constraint"}) || return
    printf '%s\n' "$stamp" >"$folder/groupvit-stamp"
  fi
}

# quiet TensorFlow, no network; a caller's own settings win
export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-3}"
export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}"
export HF_HUB_DISABLE_TELEMETRY=1

#!/usr/bin/env bash
# Sets up mixup's environment from the locks in this folder. The Makefile, CI and both Dockerfiles
# run this one script; `docker/install.sh --help` says how.
set -euo pipefail
SECONDS=0  # one of this name may be in the environment, from `make fuzz SECONDS=600`

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() {
  cat <<'TEXT'
usage: docker/install.sh [--gpu] [--cluster] [--deps-only] [VENV_DIR]

Installs the locked packages and mixup itself (editable) into VENV_DIR, which is made if it does not
exist; an existing environment of Python 3.11 is taken as it is. Without VENV_DIR: $MIXUP_ENV, or
.venv in the repository. Running it again finishes a half-done set-up, or finds nothing to do.

  --gpu        the GPU environment (docker/requirements-gpu.txt) in place of the CPU one
  --cluster    also the AWS client that `ray up` needs on a head node
  --deps-only  the locked packages without mixup itself (for a Docker layer)

Environment:
  PYTHON             the Python 3.11 to make the environment with
  MIXUP_ENV          the environment's folder
  MIXUP_TORCH_INDEX  one more package index to look for torch in, such as PyTorch's own CPU index;
                     without a CPU build in reach, the CUDA build is taken (3 GB more)
pip's own settings (mirrors, proxies, certificates) are obeyed. Its output is in VENV_DIR/setup.log.
TEXT
}

say() { printf 'setup: %s\n' "$*"; }

fail() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}

version_of() { "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null; }

# Prints a Python 3.11: the only version that the locks were run with.
find_python() {
  local candidates=(python3.11 python3.12 python3.13 python3 python) candidate version others=""
  [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
  for candidate in "${candidates[@]}"; do
    version=$(version_of "$candidate") || continue
    case $version in
      3.11.*) printf '%s\n' "$candidate" && return ;;
      *) others+="${others:+, }$candidate is $version" ;;
    esac
  done
  fail "needs Python 3.11, found ${others:-none${PYTHON:+ at PYTHON=$PYTHON}};" \
    "install it, or set PYTHON to its path"
}

# The nearest folder at or above $1 that exists.
existing() {
  local dir=$1
  while [ ! -d "$dir" ]; do dir=$(dirname "$dir"); done
  printf '%s\n' "$dir"
}

free_gb() { df -Pk "$(existing "$1")" | awk 'NR == 2 {print int($4 / 1048576)}'; }

need_disk() {
  local dir=$1 need=$2 free
  free=$(free_gb "$dir")
  [ "$free" -ge "$need" ] || fail "needs $need GB free in $dir, has $free GB"
}

hash_of() { cat "$@" | { sha256sum 2>/dev/null || shasum -a 256; } | cut -c1-16; }

# stamped NAME: what the last run that finished that part wrote down.
stamped() { sed -n "s/^$1=//p" "$env/setup.stamp" 2>/dev/null || true; }

up_to_date() {
  [ -x "$env/bin/python" ] && [ "$(stamped locks)" = "$locks_hash" ] || return 1
  [ -n "$deps_only" ] || [ "$(stamped project)" = "$project" ]
}

# The last line of pip's output $1 that tells of a connection that failed, in short.
broken_connection() {
  grep -E "Retrying \(|ConnectionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError|IncompleteRead" <<<"$1" |
    tail -n 1 | sed -E 's/.*connection broken by //; s/<[^>]*>: *//g' | cut -c1-200
}

# Says in one line why pip failed to install $1, from its output $2.
explain() {
  local what=$1 output=$2 line
  if grep -q "No space left on device" <<<"$output"; then
    fail "no space left on the disk of $env or of ${TMPDIR:-/tmp}; log: $log"
  elif grep -q "DO NOT MATCH THE HASHES" <<<"$output"; then
    line=$(grep -A 1 "DO NOT MATCH THE HASHES" <<<"$output" | awk 'NR == 2 {print $1}')
    fail "$line as found is not the one in the lock (its hash differs), so nothing was installed; log: $log"
  elif line=$(broken_connection "$output"); then
    fail "the package registry cannot be reached ($line); check the network or the proxy settings of pip"
  fi
  line=$(grep -E "^ *(ERROR|error):" <<<"$output" | tail -n 1 | cut -c1-200) || true
  fail "pip could not install $what (${line:-no message}); log: $log"
}

# run_pip ARGUMENT...: puts what this step printed into pip_output, and all into the log.
run_pip() {
  local before status=0
  before=$(wc -l <"$log")
  PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
    "$env/bin/python" -m pip install --no-deps --no-input --progress-bar off "$@" >>"$log" 2>&1 || status=$?
  pip_output=$(tail -n "+$((before + 1))" "$log")
  return "$status"
}

# pip_install WHAT ARGUMENT...
pip_install() {
  local what=$1 seconds=$SECONDS
  shift
  say "installing $what"
  run_pip "$@" || explain "$what" "$pip_output"
  say "installed $what in $((SECONDS - seconds)) s"
}

from_lock() { printf '%s\n' --only-binary :all: --require-hashes -r "$root/$1"; }

install_lock() {
  local arguments
  mapfile -t arguments < <(from_lock "$1")
  pip_install "$(grep -c == "$root/$1") packages of $1" "${arguments[@]}"
}

# DeepSpeed is published as source; its set-up imports torch, so it is built in the environment. No
# operator is compiled here: those that a run needs are, with g++, at their first use.
install_deepspeed() {
  local lock=docker/requirements-deepspeed.txt
  export DS_BUILD_OPS=0 DS_ACCELERATOR=${DS_ACCELERATOR:-${gpu:+cuda}}
  : "${DS_ACCELERATOR:=cpu}"
  pip_install "DeepSpeed from its source" --no-build-isolation --no-binary deepspeed \
    --require-hashes -r "$root/$lock"
  command -v g++ >/dev/null ||
    say "no g++ is here: train-sft and train-grpo need it, the other jobs do not (Debian, Ubuntu: apt-get install g++)"
}

# Takes torch's CPU build where pip finds one, unless a torch is there already.
install_cpu_torch() {
  local arguments seconds=$SECONDS
  mapfile -t arguments < <(from_lock docker/requirements-torch-cpu.txt)
  [ -z "${MIXUP_TORCH_INDEX:-}" ] || arguments+=(--extra-index-url "$MIXUP_TORCH_INDEX")
  if "$env/bin/python" -c 'from importlib.metadata import version; version("torch")' 2>/dev/null; then
    return
  fi
  say "looking for the CPU build of torch"
  if run_pip "${arguments[@]}"; then
    say "installed the CPU build of torch in $((SECONDS - seconds)) s"
  elif grep -q "No matching distribution" <<<"$pip_output" && ! broken_connection "$pip_output" >/dev/null; then
    say "no CPU build of torch is in reach (MIXUP_TORCH_INDEX may name an index): taking the CUDA build, 3 GB more"
  else
    explain "the CPU build of torch" "$pip_output"
  fi
}

# True for the registry's torch, whose metadata names CUDA packages; its +cpu build names none.
torch_needs_cuda() {
  "$env/bin/python" - <<'PYTHON'
import re
import sys
from importlib.metadata import requires

sys.exit(not any(re.match(r"(cuda|nvidia)-", line) for line in requires("torch") or ()))
PYTHON
}

make_env() {
  local python
  python=$(find_python)
  say "making the environment $env with $python ($(version_of "$python"))"
  "$python" -m venv "$env" >>"$log" 2>&1 ||
    fail "$python cannot make an environment ($(tail -n 1 "$log")); on Debian and Ubuntu install python3.11-venv"
}

check_env() {
  local version
  version=$(version_of "$env/bin/python") || fail "$env/bin/python does not run; remove $env"
  case $version in
    3.11.*) ;;
    *) fail "$env has Python $version, and the locks are for 3.11; remove it or name another folder" ;;
  esac
  "$env/bin/python" -m pip --version >/dev/null 2>&1 ||
    "$env/bin/python" -m ensurepip >>"$log" 2>&1 || fail "$env has no pip, and ensurepip failed; log: $log"
  [ -n "$gpu" ] || "$env/bin/python" -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null ||
    fail "needs the system's libnuma.so.1, which vLLM on CPU loads (Debian, Ubuntu: apt-get install libnuma1)"
}

# A killed pip can leave a package's metadata without all of its files; RECORD is what it writes last.
drop_half_installed() {
  local info
  for info in "$env"/lib/python3.11/site-packages/*.dist-info; do
    [ -e "$info/RECORD" ] || [ ! -e "$env/pyvenv.cfg" ] || rm -rf "$info"
  done
}

install_locks() {
  local need=$1 used
  used=$(du -sk "$env" | awk '{print int($1 / 1048576)}')
  need_disk "$env" "$((need > used ? need - used : 1))"
  need_disk "${TMPDIR:-/tmp}" "$((need / 3))"
  drop_half_installed
  [ -n "$gpu" ] || install_cpu_torch
  install_lock "${locks[0]}"
  if [ -z "$gpu" ] && torch_needs_cuda; then
    need_disk "$env" 5
    install_lock docker/requirements-cuda.txt
  fi
  install_deepspeed
  [ -z "$cluster" ] || install_lock docker/requirements-cluster.txt
}

main() {
  local env="" gpu="" cluster="" deps_only="" locks need=6 locks_hash project log pip_output=""
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) usage && exit 0 ;;
      --gpu) gpu=yes ;;
      --cluster) cluster=yes ;;
      --deps-only) deps_only=yes ;;
      -*) usage >&2 && fail "unknown option $1" ;;
      *) [ -z "$env" ] || fail "one VENV_DIR, not two: $env and $1" && env=$1 ;;
    esac
    shift
  done
  env=${env:-${MIXUP_ENV:-$root/.venv}}
  case $env in /*) ;; *) env=$PWD/$env ;; esac

  # What other Pythons see must not count as installed here.
  unset PYTHONPATH PYTHONHOME
  export PYTHONNOUSERSITE=1

  locks=(docker/requirements-{cpu,torch-cpu,cuda,deepspeed}.txt)
  [ -z "$gpu" ] || { locks=(docker/requirements-{gpu,deepspeed}.txt) && need=20; }
  locks_hash=$(cd "$root" && hash_of "${locks[@]}" ${cluster:+docker/requirements-cluster.txt})
  project="$(hash_of "$root/pyproject.toml") $root"

  up_to_date && say "up to date ($env)" && return
  if [ -n "$(ls -A "$env" 2>/dev/null)" ] && [ ! -e "$env/setup.lock" ] && [ ! -e "$env/bin/python" ]; then
    fail "$env holds other files and no Python environment; name another folder"
  fi
  mkdir -p "$env" 2>/dev/null || fail "cannot make the folder $env"
  [ -w "$env" ] || fail "cannot write into $env"
  exec 9>"$env/setup.lock"
  if command -v flock >/dev/null && ! flock -n 9; then
    say "waiting for another set-up of $env" && flock 9
    up_to_date && say "up to date ($env)" && return
  fi
  log=$env/setup.log
  : >"$log"
  if [ ! -x "$env/bin/python" ]; then
    need_disk "$env" "$need"
    make_env
  fi
  check_env
  if [ "$(stamped locks)" != "$locks_hash" ]; then
    install_locks "$need"
    printf 'locks=%s\n' "$locks_hash" >"$env/setup.stamp"
  fi
  if [ -z "$deps_only" ]; then
    pip_install "mixup from $root" --no-build-isolation --editable "$root"
    printf 'locks=%s\nproject=%s\n' "$locks_hash" "$project" >"$env/setup.stamp"
  fi
  say "done in $SECONDS s ($env, $(du -sk "$env" | awk '{printf "%.1f", $1 / 1048576}') GB)"
}

# Sourcing the script defines its functions and does nothing.
if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  main "$@"
fi

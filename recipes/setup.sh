#!/usr/bin/env bash
# Makes a machine ready: Debian packages where they are missing and we are root, a virtual environment, the pinned
# dependencies. Usage: recipes/setup.sh PYTHON VENV
set -euo pipefail
python=$1 venv=$2

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "found: $("$python" --version); expected: Python 3.11 or newer; next: make PYTHON=/path/to/python3.11 demo" >&2
  exit 2
}

packages=()
command -v git >/dev/null || packages+=(git)
"$python" -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv)
command -v chromium >/dev/null || command -v google-chrome >/dev/null || packages+=(chromium)
if [ ${#packages[@]} -gt 0 ] && command -v apt-get >/dev/null; then
  if [ "$(id -u)" = 0 ]; then
    echo "installing Debian packages: ${packages[*]} (git serves the local Hub, chromium opens the Space in its test)"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null; } ||
      echo "could not install ${packages[*]}; going on without" >&2
  else
    echo "missing: ${packages[*]}; install them with: sudo apt-get install ${packages[*]}" >&2
  fi
fi
command -v git >/dev/null || { echo "found: no git; expected: git; next: install git, then run make again" >&2; exit 2; }

[ -x "$venv/bin/pip" ] || "$python" -m venv --clear "$venv"
echo "installing the pinned dependencies into $venv (minutes on the first run, nothing later)"
# torch first and by its exact version: a range would let pip choose a build with several GB of CUDA libraries.
"$venv/bin/pip" install --quiet --disable-pip-version-check "$(grep '^torch==' constraints.txt)"
"$venv/bin/pip" install --quiet --disable-pip-version-check -c constraints.txt -e '.[build,train,hub,space,dev]'
touch "$venv/.installed"

#!/usr/bin/env bash
# Install what Didact needs on Debian 12: only what is missing, and it says what before it does it.
#   deploy/install-deps.sh            packages to build and run
#   deploy/install-deps.sh --test     those, and what the tests use (with onnxruntime and optuna in build/venv)
#   deploy/install-deps.sh --print    list the packages and stop
# Exit: 0 done (or nothing to do), 64 wrong option, 69 another system or apt-get failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# libonnx-dev is here for one text file, onnx.proto; nothing links against libonnx.
BUILD=(gcc make libc6-dev pkg-config libzmq3-dev libprotobuf-c-dev protobuf-c-compiler libsqlite3-dev libopenblas-dev
       libuv1-dev libmicrohttpd-dev libjansson-dev libyaml-dev libsodium-dev libpng-dev libjpeg-dev zlib1g-dev
       libonnx-dev dataset-fashion-mnist)
TEST=(g++ libcmocka-dev python3 python3-venv python3-pytest python3-yaml python3-zmq python3-numpy python3-protobuf python3-torch fish zsh
      protobuf-compiler sqlite3 curl ca-certificates util-linux chromium-headless-shell)
# What Debian 12 does not have, as `module requirement`; of onnxruntime the newest that still runs with Debian's numpy.
PYPI=('onnxruntime onnxruntime>=1.16,<1.21' 'optuna optuna>=4,<5')
VENV=build/venv

say() { printf '%s\n' "install-deps: $*" >&2; }

want_test=0 print_only=0
for arg in "$@"; do
    case $arg in
    --test)  want_test=1 ;;
    --print) print_only=1 ;;
    -h|--help) sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) say "unknown option $arg (there are --test and --print)"; exit 64 ;;
    esac
done

packages=("${BUILD[@]}")
[ "$want_test" = 0 ] || packages+=("${TEST[@]}")
if [ "$print_only" = 1 ]; then
    printf '%s\n' "${packages[@]}"
    exit 0
fi

os_id=unknown os_version=
if [ -r /etc/os-release ]; then
    os_id=$(. /etc/os-release; printf '%s' "${ID:-unknown}")
    os_version=$(. /etc/os-release; printf '%s' "${VERSION_ID:-}")
fi
if [ "$os_id" != debian ] || [ "$os_version" != 12 ]; then
    say "this is $os_id ${os_version:-(no version)}, and the script knows Debian 12 alone. Install the equivalents of:"
    printf '    %s\n' "${packages[*]}" | fold -s -w 110 >&2
    say "then run 'make' by itself"
    exit 69
fi

# One dpkg-query for all of them: a few milliseconds when there is nothing to do.
missing_packages() {
    local have
    have=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' "${packages[@]}" 2>/dev/null |
           sed -n 's/^installed //p' || true)
    local p
    for p in "${packages[@]}"; do
        grep -qxF -- "$p" <<<"$have" || printf '%s\n' "$p"
    done
}

install_packages() {
    local root=()
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || { say "not root and no sudo: as root, run apt-get install $*"; exit 69; }
        root=(sudo)
    fi
    say "installing from Debian: $*"
    export DEBIAN_FRONTEND=noninteractive
    local apt=("${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120)
    local log
    log=$(mktemp)
    # The lists may be absent or old. A repository of the user's that does not answer must not stop us: what
    # counts is whether the install below succeeds.
    if ! "${apt[@]}" install -y --no-install-recommends "$@" >"$log" 2>&1; then
        "${apt[@]}" update >"$log" 2>&1 || true
        if ! "${apt[@]}" install -y --no-install-recommends "$@" >>"$log" 2>&1; then
            tail -n 20 "$log" >&2
            rm -f "$log"
            say "apt-get could not install: $*"
            exit 69
        fi
    fi
    rm -f "$log"
}

# A machine without PyPI builds and tests all the same: the tests that need one of these are then skipped, and say so.
install_from_pypi() {
    local module=${1%% *} requirement=${1#* } log
    [ ! -e "$VENV/.didact-$module" ] || return 0
    say "installing from PyPI into $VENV: $requirement"
    mkdir -p build
    log=$(mktemp)
    # The system's python, not whichever version manager comes first in PATH: Debian's modules belong to it.
    if /usr/bin/python3 -m venv --system-site-packages "$VENV" >"$log" 2>&1 &&
       "$VENV/bin/python" -m pip install -q --disable-pip-version-check --timeout 30 --retries 1 \
           "$requirement" >>"$log" 2>&1 &&
       "$VENV/bin/python" -c "import $module" >>"$log" 2>&1; then
        : >"$VENV/.didact-$module"
    else
        tail -n 3 "$log" >&2
        say "no $module here: the tests that need it will be skipped"
    fi
    rm -f "$log"
}

mapfile -t missing < <(missing_packages)
[ "${#missing[@]}" = 0 ] || install_packages "${missing[@]}"
if [ "$want_test" = 1 ]; then
    for p in "${PYPI[@]}"; do install_from_pypi "$p"; done
fi

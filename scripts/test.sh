#!/usr/bin/env bash
# Runs the compiled mocha suites, those that need real proxies last, and ends with
# `N passed, N failed, N skipped`.
#
#   scripts/test.sh test|long|soak [FILE.ts...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly TIMEOUT_MS=20000 # per test; suites that wait for real time set their own
suite=${1:-test}
shift || true

# From the sources, not from build/: a test that was deleted leaves its compiled file behind.
if [ $# -gt 0 ]; then
  sources=("$@")
else
  mapfile -t sources < <(
    find test -name "*.$suite.ts" -not -path 'test/e2e/*' | sort
    find test/e2e -name "*.$suite.ts" 2>/dev/null | sort
  )
fi
if [ ${#sources[@]} -eq 0 ]; then
  echo '0 passed, 0 failed, 0 skipped'
  exit 0
fi
files=()
for source in "${sources[@]}"; do files+=("build/js/${source%.ts}.js"); done

options=(--no-config --no-opts --reporter "$PWD/build/js/scripts/mocha-reporter.js" --timeout "$TIMEOUT_MS" --exit)
# A forgotten `.only` would pass for the whole suite.
[ -n "${CI:-}" ] && options+=(--forbid-only)
exec node --enable-source-maps node_modules/mocha/bin/mocha.js "${options[@]}" "${files[@]}" </dev/null

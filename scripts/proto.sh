#!/usr/bin/env bash
# Lints the protos and, once there is a release (tag v*), refuses changes that break its readers.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
npx --no-install buf lint protos
release=$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null || true)
if [ -n "$release" ]; then
  npx --no-install buf breaking protos --against ".git#tag=$release,subdir=protos"
else
  echo "proto: no release tag yet, nothing to compare with"
fi

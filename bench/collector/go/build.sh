#!/usr/bin/env bash
# Builds the Go server that bench/collector compares with: build.sh DIR. Needs Go and its modules.
set -euo pipefail
export PATH="$PATH:/usr/local/go/bin" GOFLAGS=-mod=mod GOWORK=off
source=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$source/../../.." && pwd)
out=$(cd "$1" && pwd)
cp "$source"/main.go "$source"/tools.go "$source"/go.mod "$source"/go.sum "$out"
cd "$out"
GOBIN="$out/bin" go install google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
mapping=()
for file in "$root"/protos/meshpulse/v1/*.proto; do
  mapping+=("Mmeshpulse/v1/$(basename "$file")=meshpulse.local/bench/pb")
done
options=$(IFS=,; echo "module=meshpulse.local/bench,${mapping[*]}")
cat >buf.gen.yaml <<EOF
version: v2
plugins:
  - {local: "$out/bin/protoc-gen-go", out: ., opt: "$options"}
  - {local: "$out/bin/protoc-gen-go-grpc", out: ., opt: "$options"}
EOF
"$root/node_modules/.bin/buf" generate "$root/protos" --template buf.gen.yaml
go build -o server .

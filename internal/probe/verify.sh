#!/bin/sh
# Compiles the eBPF programs anew and compares with the committed objects. Exit
# status 1 if they differ. Another clang writes other code: without the version
# below, the script compares nothing, reports that, and fails only if
# PORTWATCHER_REQUIRE is 1.
set -eu
want=14
cd "$(dirname "$0")"
have=$(clang --version 2>/dev/null | sed -n 's/.*clang version \([0-9]*\)\..*/\1/p')
if [ "$have" != "$want" ]; then
	echo "verify.sh: NOT compared: it needs clang $want, llvm-strip and libbpf's headers; found clang ${have:-not at all}" >&2
	[ "${PORTWATCHER_REQUIRE:-}" != 1 ]
	exit
fi
new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT
sh generate.sh "$new"
status=0
for file in "$new"/*; do
	cmp "$file" "$(basename "$file")" || status=1
done
if [ $status -ne 0 ]; then
	echo "verify.sh: the committed files are not what the sources give: run go generate ./internal/probe" >&2
else
	echo "The committed eBPF objects are what clang $have makes of their sources."
fi
exit $status

#!/bin/sh
# Compiles bpf/sockets.bpf.c into the directory $1 (`go generate` makes the committed
# objects). Needs clang, llvm-strip and the headers of libbpf. No path of this machine
# gets into the result. bpf2go's Go loader is removed: the package needs the objects only.
set -eu
out=$(cd "$1" && pwd)
cd "$(dirname "$0")"
GOPACKAGE=probe go run github.com/cilium/ebpf/cmd/bpf2go -tags linux -target bpfel,bpfeb -no-global-types \
	-output-dir "$out" -output-stem sockets -cflags "-O2 -g -Wall -Wextra -Wno-unused-parameter -Werror -Wno-address-of-packed-member -fno-ident" \
	sockets bpf/sockets.bpf.c
rm "$out"/sockets_bpfel.go "$out"/sockets_bpfeb.go

#!/bin/sh
# Compiles bpf/sockets.bpf.c into the directory $1 (the committed objects are made by
# `go generate`), with their Go loader. Needs clang, llvm-strip and the headers
# of libbpf. No path of this machine gets into the result.
set -eu
out=$(cd "$1" && pwd)
cd "$(dirname "$0")"
GOPACKAGE=probe go run github.com/cilium/ebpf/cmd/bpf2go -tags linux -target bpfel,bpfeb -no-global-types \
	-output-dir "$out" -output-stem sockets -cflags "-O2 -g -Wall -Wextra -Wno-unused-parameter -Werror -Wno-address-of-packed-member -fno-ident" \
	sockets bpf/sockets.bpf.c

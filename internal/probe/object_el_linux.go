//go:build 386 || amd64 || arm || arm64 || loong64 || mips64le || mipsle || ppc64le || riscv64

package probe

import _ "embed"

//go:embed sockets_bpfel.o
var object []byte

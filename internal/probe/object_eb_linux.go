//go:build mips || mips64 || ppc64 || s390x

package probe

import _ "embed"

//go:embed sockets_bpfeb.o
var object []byte

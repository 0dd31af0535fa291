package server

import (
	"os"
	"syscall"
)

// inodeOf tells a file from the one that replaced it.
func inodeOf(info os.FileInfo) uint64 {
	if system, ok := info.Sys().(*syscall.Stat_t); ok {
		return system.Ino
	}
	return 0
}

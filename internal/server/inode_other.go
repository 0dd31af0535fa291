//go:build !linux

package server

import "os"

// inodeOf tells a file from the one that replaced it: by time and size alone here.
func inodeOf(os.FileInfo) uint64 { return 0 }

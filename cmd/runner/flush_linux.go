package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// flushInput drops what a terminal has and nobody has read; on anything else it does nothing.
func flushInput(f *os.File) { _ = unix.IoctlSetInt(int(f.Fd()), unix.TCFLSH, unix.TCIFLUSH) }

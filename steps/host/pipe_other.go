//go:build !linux

package host

import "os"

// outputPipe is the pipe for what a command prints.
func outputPipe() (r, w *os.File, err error) { return os.Pipe() }

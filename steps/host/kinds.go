package host

import (
	"fmt"
	"strconv"
	"strings"

	"runbook/steps"
)

// Kinds lists the kinds of this package.
func Kinds() []*steps.Definition {
	return []*steps.Definition{
		checkPort().Define(),
		checkCommand().Define(),
		checkDisk().Define(),
		file().Define(),
		removePath().Define(),
		process().Define(),
	}
}

// absolute is a Problem where a path is not absolute: a host has no directory that a runbook could mean.
func absolute(input, path string, unknown func(string) bool) []steps.Problem {
	if unknown(input) || strings.HasPrefix(path, "/") {
		return nil
	}
	return []steps.Problem{{Input: input, Message: fmt.Sprintf("%s must be an absolute path, got %q", input, path)}}
}

// VersionLess compares dotted versions number by number; a missing number counts as 0.
func VersionLess(a, b string) bool {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i := range max(len(x), len(y)) {
		if m, n := part(x, i), part(y, i); m != n {
			return m < n
		}
	}
	return false
}

func part(p []string, i int) int {
	if i >= len(p) {
		return 0
	}
	end := strings.IndexFunc(p[i], func(r rune) bool { return r < '0' || r > '9' })
	if end >= 0 {
		p[i] = p[i][:end]
	}
	n, _ := strconv.Atoi(p[i])
	return n
}

//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"
)

// cost is what a process took.
type cost struct {
	wall time.Duration
	cpu  time.Duration // user and system, with the children that it waited for
	rss  int64         // bytes, at most
}

// measure runs a command to its end. codes are the exit codes besides 0 that are right.
//
// What it prints goes to /dev/null: a pipe would make the reader's speed a part of the number.
// This process must stay small, because what a child had resident at its start counts as its own.
func measure(argv []string, codes ...int) (cost, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return cost{}, err
	}
	defer func() { _ = null.Close() }()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = null, null, null
	began := time.Now()
	err = cmd.Run()
	c := cost{wall: time.Since(began)}
	if cmd.ProcessState == nil {
		return c, fmt.Errorf("%v: %w", argv, err)
	}
	if code := cmd.ProcessState.ExitCode(); code != 0 && !slices.Contains(codes, code) {
		said, _ := exec.Command(argv[0], argv[1:]...).CombinedOutput() // once more, to hear why
		return c, fmt.Errorf("%v: %s: %s", argv, cmd.ProcessState, bytes.TrimSpace(said[max(0, len(said)-2000):]))
	}
	c.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		c.rss = u.Maxrss << 10
	}
	return c, nil
}

// medians takes each number's own median over so many rounds; argv makes the command line of each.
func medians(rounds int, argv func() ([]string, error), codes ...int) (cost, error) {
	var all []cost
	for range rounds {
		words, err := argv()
		if err != nil {
			return cost{}, err
		}
		c, err := measure(words, codes...)
		if err != nil {
			return cost{}, err
		}
		all = append(all, c)
	}
	return cost{wall: middle(all, func(c cost) time.Duration { return c.wall }), cpu: middle(all, func(c cost) time.Duration { return c.cpu }),
		rss: middle(all, func(c cost) int64 { return c.rss })}, nil
}

// middle is the median of a field.
func middle[T any, N ~int64](all []T, of func(T) N) N {
	numbers := make([]N, len(all))
	for i, one := range all {
		numbers[i] = of(one)
	}
	slices.Sort(numbers)
	return numbers[len(numbers)/2]
}

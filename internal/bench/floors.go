//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// steps is how many a short run has.
const steps = 1000

// floors are what the machine takes for the parts that a runner cannot do without.
type floors struct {
	sync  time.Duration // append of 1 KiB and fdatasync
	ping  time.Duration // one PING of Redis over a connection that is open
	empty cost          // an empty Go program
	forks cost          // 1000 times /bin/true with os/exec, one after the other
	files cost          // 1000 small files, each durable under its name
	both  cost          // 1000 times fdatasync, then /bin/true
}

func (b *bench) floors() (f floors, err error) {
	if f.sync, err = b.medianOf(func() (time.Duration, error) { return syncFloor(filepath.Join(b.dir, "sync")) }); err != nil {
		return f, err
	}
	if f.ping, err = b.medianOf(func() (time.Duration, error) { return pingFloor(b.redis) }); err != nil {
		return f, err
	}
	empty, err := b.buildEmpty()
	if err != nil {
		return f, err
	}
	if f.empty, err = medians(4*b.options.rounds, func() ([]string, error) { return []string{empty}, nil }); err != nil {
		return f, err
	}
	for _, loop := range []struct {
		name string
		to   *cost
	}{{"forks", &f.forks}, {"files", &f.files}, {"both", &f.both}} {
		if *loop.to, err = medians(b.options.rounds, func() ([]string, error) {
			dir, err := b.fresh("floor")
			return []string{b.self, "-loop", loop.name, dir, strconv.Itoa(steps)}, err
		}); err != nil {
			return f, err
		}
	}
	return f, nil
}

func (b *bench) medianOf(once func() (time.Duration, error)) (time.Duration, error) {
	var all []time.Duration
	for range b.options.rounds {
		d, err := once()
		if err != nil {
			return 0, err
		}
		all = append(all, d)
	}
	slices.Sort(all)
	return all[len(all)/2], nil
}

// buildEmpty makes the program that does nothing.
func (b *bench) buildEmpty() (string, error) {
	dir, err := b.fresh("empty")
	if err != nil {
		return "", err
	}
	source, program := filepath.Join(dir, "main.go"), filepath.Join(dir, "empty")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o644); err != nil {
		return "", err
	}
	if out, err := exec.Command("go", "build", "-o", program, source).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build an empty program: %w: %s", err, out)
	}
	return program, nil
}

// syncFloor is one append of 1 KiB with its fdatasync, of many in a row.
func syncFloor(path string) (time.Duration, error) {
	const n = 500
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	line := make([]byte, 1024)
	began := time.Now()
	for range n {
		if _, err := f.Write(line); err != nil {
			return 0, err
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return 0, err
		}
	}
	return time.Since(began) / n, nil
}

func pingFloor(addr string) (time.Duration, error) {
	const n = 5000
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }()
	r := bufio.NewReader(c)
	began := time.Now()
	for range n {
		if _, err := c.Write([]byte("*1\r\n$4\r\nPING\r\n")); err != nil {
			return 0, err
		}
		if _, err := r.ReadSlice('\n'); err != nil {
			return 0, err
		}
	}
	return time.Since(began) / n, nil
}

// bare is a loop that does nothing but the work itself.
func bare(kind string, args []string) error {
	if len(args) != 2 {
		return errors.New("-loop wants a directory and a number")
	}
	dir := args[0]
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	line := make([]byte, 512)
	for i := range n {
		if kind == "both" {
			if _, err := log.Write(line); err != nil {
				return err
			}
			if err := syscall.Fdatasync(int(log.Fd())); err != nil {
				return err
			}
		}
		switch kind {
		case "forks", "both":
			err = exec.Command("/bin/true").Run()
		case "files":
			err = writeDurable(dir, strconv.Itoa(i))
		default:
			err = fmt.Errorf("there is no loop %q", kind)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// writeDurable makes a file of one byte so that a crash leaves all of it or nothing.
func writeDurable(dir, name string) error {
	f, err := os.CreateTemp(dir, "."+name+".*")
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if _, err := f.WriteString("v"); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), filepath.Join(dir, name)); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return d.Sync()
}

// startRedis starts a redis-server that keeps nothing on disk, on a port that was free.
func (b *bench) startRedis() (stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b.redis = l.Addr().String()
	_, port, _ := net.SplitHostPort(b.redis)
	if err := l.Close(); err != nil {
		return nil, err
	}
	cmd := exec.Command("redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", b.dir)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w; make setup installs it", err)
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	for range 200 {
		if c, err := net.Dial("tcp", b.redis); err == nil {
			return stop, c.Close()
		}
		time.Sleep(20 * time.Millisecond)
	}
	stop()
	return nil, fmt.Errorf("redis-server does not answer at %s", b.redis)
}

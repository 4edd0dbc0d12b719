package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"

	"runbook/internal/simulate"
	simhost "runbook/internal/simulate/host"
	"runbook/steps"
	"runbook/steps/host"
)

// machine makes a simulated host look like any other to the step kinds.
type machine struct {
	host  *simhost.Host
	world *simulate.World
}

func (m *machine) String() string { return m.host.Name() + " (simulated)" }

// Run answers from the world's stubs; the programs that the world knows are its own.
func (m *machine) Run(ctx context.Context, c host.Command) (host.Result, error) {
	argv := c.Argv
	if c.Shell != "" {
		argv = []string{c.Shell}
	}
	if len(argv) == 0 {
		return host.Result{}, steps.Errorf("start", "a command is empty")
	}
	if d := m.host.Takes(argv); d > 0 {
		if err := m.world.Clock().Sleep(ctx, d); err != nil {
			return host.Result{}, fmt.Errorf("run %s on %v: %w", argv[0], m, err)
		}
	}
	out, errOut, code, err := m.host.Run(argv, c.Stdin)
	if errors.Is(err, simhost.ErrNoStub) {
		if said, code, known := m.world.Run(m.host, argv, c.Dir, environment(c.Env)); known {
			return host.Result{Code: code, Stderr: host.Output{Text: said}}, nil //nolint:nilerr // the world has an answer of its own
		}
	}
	if err != nil {
		return host.Result{}, steps.Errorf("sandbox", "run %w", err)
	}
	return host.Result{Code: code, Stdout: host.Output{Text: string(out)}, Stderr: host.Output{Text: string(errOut)}}, nil
}

func environment(env map[string]string) []string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list
}

func (m *machine) Start(ctx context.Context, s host.Spawn) (host.Process, error) {
	pid, err := m.host.Start(s.Argv, s.Dir, environment(s.Env))
	if err != nil {
		return host.Process{}, steps.Errorf("start", "%w", err)
	}
	if s.PIDFile != "" {
		if err := m.host.WriteFile(s.PIDFile, []byte(strconv.Itoa(pid)+"\n"), 0o644); err != nil {
			return host.Process{}, err
		}
	}
	return m.Process(ctx, pid)
}

func (m *machine) Process(_ context.Context, pid int) (host.Process, error) {
	argv, started, alive := m.host.Process(pid)
	if !alive {
		return host.Process{}, fmt.Errorf("process %d on %v: %w", pid, m, fs.ErrNotExist)
	}
	return host.Process{PID: pid, ID: fmt.Sprintf("%d-%d", pid, started.UnixNano()), Started: started, Argv: argv}, nil
}

func (m *machine) Signal(ctx context.Context, p host.Process, sig host.Signal, _ bool) error {
	now, err := m.Process(ctx, p.PID)
	if err != nil {
		return err
	}
	if p.ID != "" && now.ID != p.ID {
		return fmt.Errorf("process %d on %v is another one now: %w", p.PID, m, fs.ErrNotExist)
	}
	return m.host.Signal(p.PID, string(sig))
}

func (m *machine) ReadFile(_ context.Context, name string, limit int64) ([]byte, error) {
	b, _, err := m.host.ReadFile(name)
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, steps.Errorf("too-large", "read %s on %v: it has %d bytes, more than %d", name, m, len(b), limit)
	}
	return b, nil
}

func (m *machine) WriteFile(_ context.Context, name string, content []byte, mode fs.FileMode) error {
	if mode == 0 {
		mode = 0o644
		if _, old, err := m.host.ReadFile(name); err == nil {
			mode = old
		}
	}
	return m.host.WriteFile(name, content, mode)
}

func (m *machine) Remove(_ context.Context, name string) error {
	if err := m.host.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Mkdir does nothing: a simulated folder is there as soon as a file is in it.
func (m *machine) Mkdir(context.Context, string, fs.FileMode) error { return nil }

func (m *machine) Stat(_ context.Context, name string) (host.File, error) {
	i, err := m.host.Stat(name)
	if err != nil {
		return host.File{}, err
	}
	return host.File{Name: path.Base(i.Path), Size: i.Size, Mode: i.Mode, Modified: i.Modified}, nil
}

// List gives what a folder has; that of /proc are the processes.
func (m *machine) List(ctx context.Context, dir string) ([]host.File, error) {
	if path.Clean(dir) == "/proc" {
		var processes []host.File
		for _, pid := range m.host.Processes() {
			processes = append(processes, host.File{Name: strconv.Itoa(pid), Mode: fs.ModeDir | 0o555})
		}
		return processes, nil
	}
	names := map[string]bool{}
	for _, full := range m.host.List(dir) {
		rest := strings.TrimPrefix(strings.TrimPrefix(full, path.Clean(dir)), "/")
		first, _, _ := strings.Cut(rest, "/")
		names[first] = true
	}
	if len(names) == 0 {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: fs.ErrNotExist}
	}
	var files []host.File
	for _, name := range slices.Sorted(maps.Keys(names)) {
		f, err := m.Stat(ctx, path.Join(dir, name))
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

func (m *machine) RealPath(ctx context.Context, name string) (string, error) {
	if _, err := m.Stat(ctx, name); err != nil {
		return "", err
	}
	return path.Clean(name), nil
}

func (m *machine) Listening(_ context.Context, port int) (host.Listener, error) {
	pid, argv, open := m.host.Holder(port)
	l := host.Listener{Port: port, Open: open, PID: pid, Process: strings.Join(argv, " ")}
	if open {
		l.Addrs = []string{fmt.Sprintf("127.0.0.1:%d", port)}
	}
	return l, nil
}

// Dial reaches the systems of the world, and its HTTP stubs behind every other address.
func (m *machine) Dial(ctx context.Context, addr string) (net.Conn, error) {
	if _, ok := m.world.Resolve(addr); ok {
		return m.world.Dial(ctx, "tcp", addr)
	}
	client, server := net.Pipe()
	go m.serve(server, addr)
	return client, nil
}

// serve answers HTTP requests on one connection; what no stub fits is refused with 501.
func (m *machine) serve(conn net.Conn, addr string) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, req.Body) // a stub does not look at it
		name := req.Host
		if name == "" {
			name = addr
		}
		url := "http://" + name + req.URL.RequestURI()
		stub, ok := m.world.HTTP(req.Method, url)
		if !ok {
			stub = simulate.HTTP{Status: http.StatusNotImplemented, Body: "no stub answers " + req.Method + " " + url + "; add it under http: in the world file"}
		}
		answer := &http.Response{StatusCode: stub.Status, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Request: req,
			Body: io.NopCloser(strings.NewReader(stub.Body)), ContentLength: int64(len(stub.Body))}
		for k, v := range stub.Headers {
			answer.Header.Set(k, v)
		}
		if answer.Write(conn) != nil {
			return
		}
	}
}

func (m *machine) Look(_ context.Context, name string, _ ...string) (host.Tool, error) {
	p, v, ok := m.host.LookPath(name)
	if !ok {
		return host.Tool{}, fmt.Errorf("%s on %v: %w", name, m, fs.ErrNotExist)
	}
	return host.Tool{Path: p, Version: v, Output: name + " " + v}, nil
}

func (m *machine) Disk(_ context.Context, name string) (host.Disk, error) {
	total, free := m.host.Disk(name)
	return host.Disk{Path: name, Total: total, Free: free}, nil
}

func (m *machine) Facts(context.Context) (host.Facts, error) {
	return host.Facts{Hostname: m.host.Name(), User: "sandbox", Home: "/home/sandbox", Mounts: []string{"/"}}, nil
}

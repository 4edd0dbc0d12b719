// Package host is a machine that does not exist: files, ports, processes and disks in memory. Step kinds that act on a
// host act on this one in the sandbox, so a rehearsal writes no file and starts no program. What a program does is told by
// a Launcher (the world starts its simulated servers so) or by stubs; a command that nobody answers for is refused, since
// guessing that it would succeed would make a rehearsal lie.
package host

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"runbook/internal/simulate/clock"
)

// Program is what a process runs.
type Program interface {
	// Signal delivers TERM, KILL, HUP, …; a program that ends by it is no longer Alive afterwards.
	Signal(sig string)
	Alive() bool
	// Listens says whether it has that port open, by the number the runbook knows or the real one.
	Listens(port int) bool
}

// Launcher starts the programs it knows; ok is false for others. pid is the one that the process will have.
type Launcher func(h *Host, pid int, argv []string, dir string, env []string) (p Program, ok bool, err error)

// Command is a stub: what a command answers instead of being run.
type Command struct {
	Match  string        `yaml:"match"` // the words of the command, joined by blanks; * stands for anything
	Host   string        `yaml:"host"`  // only on this host; any if empty
	Stdout string        `yaml:"stdout"`
	Stderr string        `yaml:"stderr"`
	Exit   int           `yaml:"exit"`
	Takes  time.Duration `yaml:"takes"`
	// Runs keeps a started command alive as a process until it is signalled; otherwise it ends at once.
	Runs bool `yaml:"runs"`
}

// File is one file of a host.
type File struct {
	Content  []byte
	Mode     fs.FileMode
	Modified time.Time
}

// Disk is one file system.
type Disk struct {
	Total int64 `yaml:"total"`
	Free  int64 `yaml:"free"`
}

// Binary is a program that LookPath finds.
type Binary struct {
	Path    string `yaml:"path"`
	Version string `yaml:"version"`
}

// Options say what the machine has when the world begins.
type Options struct {
	Name     string
	Clock    clock.Clock
	Files    map[string]string
	Ports    map[int]string    // ports that something else holds: the process's name
	Binaries map[string]Binary // besides those that every host has; one of these without a path is missing
	Disks    map[string]Disk   // by mount point; one of 100 GiB, 80 free, if none
	Commands []Command
	Launch   Launcher
}

// Host is one machine.
type Host struct {
	name     string
	clock    clock.Clock
	launch   Launcher
	commands []Command

	mu    sync.Mutex
	files map[string]File
	ports map[int]string
	bins  map[string]Binary
	disks map[string]Disk
	procs map[int]*process
	pid   int
	log   []string
}

type process struct {
	argv    []string
	dir     string
	env     []string
	started time.Time
	program Program
}

// New makes a machine.
func New(o Options) *Host {
	h := &Host{
		name: o.Name, clock: o.Clock, launch: o.Launch, commands: o.Commands, pid: 4000,
		files: map[string]File{}, ports: maps.Clone(o.Ports), disks: maps.Clone(o.Disks), procs: map[int]*process{},
		bins: map[string]Binary{
			"redis-server": {Path: "/usr/bin/redis-server", Version: "7.0.15"},
			"redis-cli":    {Path: "/usr/bin/redis-cli", Version: "7.0.15"},
			"pika":         {Path: "/usr/local/bin/pika", Version: "3.4.0"},
			"nutcracker":   {Path: "/usr/sbin/nutcracker", Version: "0.5.0"},
			"rsync":        {Path: "/usr/bin/rsync", Version: "3.2.7"},
		},
	}
	if h.clock == nil {
		h.clock = clock.New(1)
	}
	maps.Copy(h.bins, o.Binaries)
	for p, text := range o.Files {
		h.Place(p, text)
	}
	if len(h.disks) == 0 {
		h.disks = map[string]Disk{"/": {Total: 100 << 30, Free: 80 << 30}}
	}
	return h
}

// Name is what the world calls it.
func (h *Host) Name() string { return h.name }

func missing(op, p string) error { return &fs.PathError{Op: op, Path: p, Err: fs.ErrNotExist} }

// ReadFile gives a file's content and mode; an error that is fs.ErrNotExist where there is none.
func (h *Host) ReadFile(p string) ([]byte, fs.FileMode, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f, ok := h.files[path.Clean(p)]
	if !ok {
		return nil, 0, missing("open", p)
	}
	return slices.Clone(f.Content), f.Mode, nil
}

// WriteFile replaces or makes a file. Folders exist as far as files need them.
func (h *Host) WriteFile(p string, data []byte, mode fs.FileMode) error {
	if !path.IsAbs(p) {
		return &fs.PathError{Op: "write", Path: p, Err: errors.New("the path is not absolute")}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.folder(path.Clean(p)) {
		return &fs.PathError{Op: "write", Path: p, Err: errors.New("is a directory")}
	}
	h.note("write " + p)
	h.files[path.Clean(p)] = File{Content: slices.Clone(data), Mode: mode.Perm(), Modified: h.clock.Now()}
	return nil
}

// Place makes a file that has always been there: it is not among the Changes.
func (h *Host) Place(p, text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.files[path.Clean(p)] = File{Content: []byte(text), Mode: 0o644, Modified: h.clock.Now()}
}

// Remove deletes a file, or everything below a folder.
func (h *Host) Remove(p string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	p = path.Clean(p)
	_, file := h.files[p]
	if !file && !h.folder(p) {
		return missing("remove", p)
	}
	h.note("remove " + p)
	maps.DeleteFunc(h.files, func(name string, _ File) bool { return name == p || below(name, p) })
	return nil
}

func below(name, dir string) bool { return strings.HasPrefix(name, strings.TrimSuffix(dir, "/")+"/") }

func (h *Host) folder(p string) bool {
	for name := range h.files {
		if below(name, p) {
			return true
		}
	}
	return false
}

// Info is what Stat finds.
type Info struct {
	Path     string
	Size     int64
	Mode     fs.FileMode // with fs.ModeDir for a folder
	Modified time.Time
}

// Stat looks at a file or folder.
func (h *Host) Stat(p string) (Info, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p = path.Clean(p)
	if f, ok := h.files[p]; ok {
		return Info{Path: p, Size: int64(len(f.Content)), Mode: f.Mode, Modified: f.Modified}, nil
	}
	if h.folder(p) {
		return Info{Path: p, Mode: fs.ModeDir | 0o755}, nil
	}
	return Info{}, missing("stat", p)
}

// Glob lists the files whose paths match, in order.
func (h *Host) Glob(pattern string) ([]string, error) {
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, fmt.Errorf("glob %q: %w", pattern, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []string
	for name := range h.files {
		if ok, _ := path.Match(pattern, name); ok {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out, nil
}

// List gives every file below a folder, in order.
func (h *Host) List(dir string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []string
	for name := range h.files {
		if below(name, path.Clean(dir)) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// Listening says who holds a port.
func (h *Host) Listening(port int) (process string, ok bool) {
	_, argv, ok := h.Holder(port)
	if ok {
		process = path.Base(argv[0])
	}
	return process, ok
}

// Holder gives the process that holds a port: its pid, 0 where it is none of those that the host can tell of, and its command line.
func (h *Host) Holder(port int) (pid int, argv []string, ok bool) {
	h.mu.Lock()
	name, ok := h.ports[port]
	procs := maps.Clone(h.procs)
	h.mu.Unlock() // a program has a lock of its own, and may hold it while it writes a file here
	if ok {
		return 0, []string{name}, true
	}
	for pid, p := range procs {
		if p.program.Alive() && p.program.Listens(port) {
			return pid, slices.Clone(p.argv), true
		}
	}
	return 0, nil, false
}

// SetPort has something else take a port, or free it where process is empty.
func (h *Host) SetPort(port int, process string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ports == nil {
		h.ports = map[int]string{}
	}
	if h.ports[port] = process; process == "" {
		delete(h.ports, port)
	}
}

// Adopt makes a process of a program that runs already.
func (h *Host) Adopt(argv []string, pid int, p Program) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.procs[pid] = &process{argv: argv, started: h.clock.Now(), program: p}
}

// NextPID gives a pid that no process has had.
func (h *Host) NextPID() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pid++
	return h.pid
}

// Start begins a process and returns at once.
func (h *Host) Start(argv []string, dir string, env []string) (pid int, err error) {
	if len(argv) == 0 {
		return 0, errors.New("start: no command")
	}
	h.mu.Lock()
	h.note("start " + strings.Join(argv, " "))
	h.mu.Unlock()
	pid = h.NextPID()
	p := &process{argv: slices.Clone(argv), dir: dir, env: env, started: h.clock.Now()}
	known := false
	if h.launch != nil {
		if p.program, known, err = h.launch(h, pid, argv, dir, env); err != nil {
			return 0, fmt.Errorf("start %s on %s: %w", strings.Join(argv, " "), h.name, err)
		}
	}
	if !known {
		stub, ok := h.stub(argv)
		if !ok {
			return 0, h.refuse(argv)
		}
		p.program = &stubbed{alive: stub.Runs}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.procs[pid] = p
	return pid, nil
}

// stubbed is a process that only exists.
type stubbed struct {
	mu    sync.Mutex
	alive bool
}

func (s *stubbed) Alive() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.alive
}

func (s *stubbed) Listens(int) bool { return false }

func (s *stubbed) Signal(sig string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sig != "HUP" && sig != "0" {
		s.alive = false
	}
}

// Signal sends TERM, KILL, HUP, … (also with SIG before it) or 0, which only asks. No such process is an error.
func (h *Host) Signal(pid int, sig string) error {
	sig = strings.TrimPrefix(strings.ToUpper(sig), "SIG")
	h.mu.Lock()
	p := h.procs[pid]
	if sig != "0" {
		h.note(fmt.Sprintf("kill -%s %d", sig, pid))
	}
	h.mu.Unlock()
	if p == nil || !p.program.Alive() {
		return fmt.Errorf("kill %d on %s: no such process", pid, h.name)
	}
	if sig != "0" {
		p.program.Signal(sig)
	}
	return nil
}

// Process tells about a pid; argv is nil where there never was such a process.
func (h *Host) Process(pid int) (argv []string, startedAt time.Time, alive bool) {
	h.mu.Lock()
	p := h.procs[pid]
	h.mu.Unlock()
	if p == nil {
		return nil, time.Time{}, false
	}
	return slices.Clone(p.argv), p.started, p.program.Alive()
}

// Processes lists the pids that are alive, in order.
func (h *Host) Processes() []int {
	h.mu.Lock()
	procs := maps.Clone(h.procs)
	h.mu.Unlock()
	var out []int
	for pid, p := range procs {
		if p.program.Alive() {
			out = append(out, pid)
		}
	}
	slices.Sort(out)
	return out
}

// LookPath finds a command.
func (h *Host) LookPath(name string) (path, version string, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if b, ok := h.bins[name]; ok && b.Path != "" {
		return b.Path, b.Version, true
	}
	for _, b := range h.bins {
		if b.Path == name && name != "" {
			return b.Path, b.Version, true
		}
	}
	return "", "", false
}

// Disk gives the bytes of the file system that a path lies on.
func (h *Host) Disk(p string) (total, free int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	best := ""
	for mount := range h.disks {
		if (mount == "/" || p == mount || below(p, mount)) && len(mount) > len(best) {
			best = mount
		}
	}
	return h.disks[best].Total, h.disks[best].Free
}

// ErrNoStub is what a command is refused with that the world has no answer for.
var ErrNoStub = errors.New("no stub answers this command")

// Run answers a command from the stubs. The error is for a command that could not be run at all; one that ran and failed
// has an exit code.
func (h *Host) Run(argv []string, stdin []byte) (stdout, stderr []byte, exit int, err error) {
	_ = stdin // no stub reads it yet
	h.mu.Lock()
	h.note("run " + strings.Join(argv, " "))
	h.mu.Unlock()
	c, ok := h.stub(argv)
	if !ok {
		return nil, nil, 0, h.refuse(argv)
	}
	return []byte(c.Stdout), []byte(c.Stderr), c.Exit, nil
}

// Takes says how long a command takes by its stub, for the caller to wait in its own time.
func (h *Host) Takes(argv []string) time.Duration {
	c, _ := h.stub(argv)
	return c.Takes
}

func (h *Host) stub(argv []string) (Command, bool) {
	line := strings.Join(argv, " ")
	for _, c := range h.commands {
		if (c.Host == "" || c.Host == h.name) && Matches(c.Match, line) {
			return c, true
		}
	}
	return Command{}, false
}

func (h *Host) refuse(argv []string) error {
	return fmt.Errorf("%s on %s: %w; add it under commands: in the world file, with match: %q", strings.Join(argv, " "), h.name, ErrNoStub, strings.Join(argv, " "))
}

// Matches compares a whole line with a pattern in which * stands for anything, also for nothing.
func Matches(pattern, line string) bool {
	first, rest, star := strings.Cut(pattern, "*")
	line, ok := strings.CutPrefix(line, first)
	if !ok || !star {
		return ok && line == ""
	}
	for i := 0; i <= len(line); i++ {
		if Matches(rest, line[i:]) {
			return true
		}
	}
	return false
}

func (h *Host) note(s string) { h.log = append(h.log, s) }

// Changes lists what was done to the host, in order: a test of a dry run asserts that it is empty.
func (h *Host) Changes() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.log)
}

package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"runbook/steps"
)

// Local gives the machine that the runner is on.
func Local() Machine {
	return &local{null: sync.OnceValue(func() *os.File {
		f, err := os.Open(os.DevNull)
		if err != nil {
			return nil // os/exec tries again, and says it
		}
		return f
	})}
}

type local struct {
	null     func() *os.File // the empty input; nil where it cannot be opened
	mu       sync.Mutex
	children []*child // started with DetachNone
}

// child is a process that ends with the run.
type child struct {
	cmd  *exec.Cmd
	done chan struct{}
}

func (l *local) String() string { return "localhost" }

// Close ends the processes that were started to live no longer than the run.
func (l *local) Close() error {
	l.mu.Lock()
	children := l.children
	l.children = nil
	l.mu.Unlock()
	for _, c := range children {
		killGroup(c.cmd.Process.Pid, defaultGrace)
		<-c.done
	}
	return nil
}

func (l *local) Run(ctx context.Context, c Command) (Result, error) {
	argv, err := c.args()
	if err != nil {
		return Result{}, err
	}
	if ctx.Err() != nil {
		return Result{}, ended(ctx, false, "run %s on %s", c.name(), l)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = c.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if c.Inherit != nil {
		cmd.ExtraFiles = []*os.File{c.Inherit}
	}
	if len(c.Env) > 0 || len(c.Files) > 0 {
		cmd.Env = os.Environ()
		for k, v := range c.Env {
			cmd.Env = append(cmd.Env, k+"="+v)
		}
	}
	if len(c.Files) > 0 {
		dir, err := secretFiles(c.Files)
		if dir != "" {
			defer func() { _ = os.RemoveAll(dir) }()
		}
		if err != nil {
			return Result{}, steps.Errorf("start", "run %s on %s: %w", c.name(), l, err)
		}
		for k := range c.Files {
			cmd.Env = append(cmd.Env, k+"="+filepath.Join(dir, k))
		}
	}

	var pipes pipes
	defer pipes.close()
	if null := l.null(); null != nil {
		cmd.Stdin = null // one for all commands: os/exec opens one for each
	}
	if err := pipes.open(cmd, c.Stdin); err != nil {
		return Result{}, steps.Errorf("start", "run %s on %s: %w", c.name(), l, err)
	}
	if err := cmd.Start(); err != nil {
		return Result{}, startError(c, l, err)
	}
	pipes.childHas(c.Stdin)

	killed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(killed)
		killGroup(cmd.Process.Pid, c.grace(ctx))
	})
	stdout, stderr := &capture{limit: c.limit()}, &capture{limit: c.limit()}
	errRead := make(chan struct{})
	go func() {
		defer close(errRead)
		stderr.drain(pipes.err)
	}()
	wait := sync.OnceFunc(func() {
		_ = cmd.Wait() // what it says is in ProcessState
		deadline := time.Now().Add(outputDelay)
		_ = pipes.out.SetReadDeadline(deadline)
		_ = pipes.err.SetReadDeadline(deadline)
	})
	// Most commands close their output by ending, and are waited for then: only one that takes its
	// time costs a thread that waits beside the reading, for the case that a child of it reads on.
	beside := time.AfterFunc(waitBeside, wait)
	stdout.drain(pipes.out)
	<-errRead
	beside.Stop()
	wait()

	r := Result{Stdout: stdout.output(), Stderr: stderr.output()}
	r.Code, r.Signal = status(cmd.ProcessState)
	if !stop() {
		<-killed
		return r, ended(ctx, true, "run %s on %s", c.name(), l)
	}
	if cmd.ProcessState == nil {
		return r, &steps.Error{Kind: "closed", Unknown: true, Err: fmt.Errorf("run %s on %s: its end was not seen", c.name(), l)}
	}
	return r, nil
}

// pipes are the three streams of a command. Pipes of our own instead of os/exec's save a
// goroutine each and let a deadline end the reading when a grand-child keeps them open.
type pipes struct {
	in, out, err             *os.File // ours
	childIn, childOut, child *os.File // the command's
}

func (p *pipes) open(cmd *exec.Cmd, stdin []byte) (err error) {
	if p.out, p.childOut, err = outputPipe(); err != nil {
		return err
	}
	if p.err, p.child, err = outputPipe(); err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = p.childOut, p.child
	if len(stdin) > 0 {
		if p.childIn, p.in, err = os.Pipe(); err != nil {
			return err
		}
		cmd.Stdin = p.childIn
	}
	return nil
}

// childHas closes the command's ends here, and feeds it its input.
func (p *pipes) childHas(stdin []byte) {
	_ = p.childOut.Close()
	_ = p.child.Close()
	if p.in == nil {
		return
	}
	_ = p.childIn.Close()
	go func(w *os.File) {
		_, _ = w.Write(stdin) // a command that does not read it all is no error
		_ = w.Close()
	}(p.in)
}

func (p *pipes) close() {
	for _, f := range []*os.File{p.in, p.out, p.err, p.childIn, p.childOut, p.child} {
		if f != nil {
			_ = f.Close()
		}
	}
}

func status(s *os.ProcessState) (int, Signal) {
	if s == nil {
		return -1, ""
	}
	if ws, ok := s.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return -1, signalName(ws.Signal())
	}
	return s.ExitCode(), ""
}

func startError(c Command, m Machine, err error) *steps.Error {
	// An *exec.Error repeats the name, a *fs.PathError the path: enough, without arguments.
	e := steps.Errorf("start", "run %s on %s: %w", c.name(), m, err)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		e.Kind = "not-found"
		if c.Dir != "" {
			if _, serr := os.Stat(c.Dir); serr != nil {
				return steps.Errorf("not-found", "run %s on %s: working directory: %w", c.name(), m, serr)
			}
		}
		return e.WithHint("is it installed, and in the PATH of the runner?")
	}
	return e
}

// killGroup ends a process group: SIGTERM, and SIGKILL for what is left of it after the grace.
// It returns when the group is gone, or soon after SIGKILL if the kernel cannot end it.
func killGroup(pgid int, grace time.Duration) {
	if syscall.Kill(-pgid, syscall.SIGTERM) != nil || groupEnds(pgid, grace) {
		return
	}
	_ = syscall.Kill(-pgid, syscall.SIGKILL)
	groupEnds(pgid, time.Second)
}

// groupEnds polls, since a group has no number of its own to be waited for once its leader is gone.
func groupEnds(pgid int, within time.Duration) bool {
	poll := time.NewTicker(2 * time.Millisecond)
	defer poll.Stop()
	deadline := time.After(within)
	for {
		select {
		case <-deadline:
			return false
		case <-poll.C:
			if !groupAlive(pgid) {
				return true
			}
		}
	}
}

func groupAlive(pgid int) bool { return !errors.Is(syscall.Kill(-pgid, 0), syscall.ESRCH) }

// secretFiles writes each content to a private file of its name; the directory is the caller's to remove.
func secretFiles(files map[string]string) (string, error) {
	dir, err := os.MkdirTemp(os.Getenv("XDG_RUNTIME_DIR"), "runner-")
	if err != nil {
		return "", fmt.Errorf("secret files: %w", err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			return dir, fmt.Errorf("secret files: %w", err)
		}
	}
	return dir, nil
}

func (l *local) Start(ctx context.Context, s Spawn) (Process, error) {
	if s.Detach != DetachNone {
		return startDetached(ctx, l, s)
	}
	if len(s.Argv) == 0 {
		return Process{}, steps.Errorf("start", "a command is empty")
	}
	if ctx.Err() != nil {
		return Process{}, ended(ctx, false, "start %s on %s", s.Argv[0], l)
	}
	if _, err := exec.LookPath(s.Argv[0]); err != nil && s.PIDFile != "" && s.Dir == "" {
		return Process{}, startError(Command{Argv: s.Argv, Dir: s.Dir}, l, err)
	}
	argv := s.argv()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = s.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if s.Inherit != nil {
		cmd.ExtraFiles = []*os.File{s.Inherit}
	}
	cmd.Env = os.Environ()
	for k, v := range s.Env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	if s.Output != "" {
		f, err := os.OpenFile(s.Output, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
		if err != nil {
			return Process{}, steps.Errorf("start", "start %s on %s: output: %w", s.Argv[0], l, err)
		}
		defer func() { _ = f.Close() }()
		cmd.Stdout, cmd.Stderr = f, f
	}
	if err := cmd.Start(); err != nil {
		return Process{}, startError(Command{Argv: s.Argv, Dir: s.Dir}, l, err)
	}
	c := &child{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		_ = cmd.Wait()
	}()
	l.mu.Lock()
	l.children = append(l.children, c)
	l.mu.Unlock()
	c.wrote(s.PIDFile)
	p, err := l.Process(ctx, cmd.Process.Pid)
	if errors.Is(err, fs.ErrNotExist) {
		<-c.done
		return Process{}, steps.Errorf("start", "start %s on %s: it ended at once: %s", s.Argv[0], l, cmd.ProcessState)
	}
	return p, err
}

// wrote waits until the child has written its pidfile, or has ended.
func (c *child) wrote(file string) {
	poll := time.NewTicker(2 * time.Millisecond)
	defer poll.Stop()
	for file != "" {
		if b, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(b)) == strconv.Itoa(c.cmd.Process.Pid) {
			return
		}
		select {
		case <-c.done:
			return
		case <-poll.C:
		}
	}
}

func (l *local) Process(ctx context.Context, pid int) (Process, error) {
	if ctx.Err() != nil {
		return Process{}, ended(ctx, false, "look at process %d on %s", pid, l)
	}
	dir := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		if errors.Is(err, syscall.ESRCH) {
			err = fs.ErrNotExist
		}
		return Process{}, fmt.Errorf("process %d on %s: %w", pid, l, err)
	}
	cmdline, _ := os.ReadFile(dir + "/cmdline") // it may end in between: stat was enough to say that it ran
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Process{}, fmt.Errorf("process %d on %s: %w", pid, l, err)
	}
	procStat, _ := os.ReadFile("/proc/stat") // without it the start has no date, the identity is the same
	return parseProcess(pid, string(stat), string(cmdline), string(boot), string(procStat))
}

func (l *local) Signal(ctx context.Context, p Process, sig Signal, group bool) error {
	n, ok := signals[sig]
	if !ok {
		return steps.Errorf("signal", "signal %s: not known", sig)
	}
	now, err := l.Process(ctx, p.PID)
	if err != nil {
		return fmt.Errorf("send %s to process %d on %s: %w", sig, p.PID, l, err)
	}
	if now.ID != p.ID {
		return fmt.Errorf("send %s to process %d on %s: another process has that number now: %w", sig, p.PID, l, fs.ErrNotExist)
	}
	to := p.PID
	if pgid, err := syscall.Getpgid(p.PID); group && err == nil && pgid == p.PID {
		to = -p.PID
	}
	if err := syscall.Kill(to, n); err != nil {
		if errors.Is(err, syscall.ESRCH) {
			err = fs.ErrNotExist
		}
		return fmt.Errorf("send %s to process %d on %s: %w", sig, p.PID, l, err)
	}
	return nil
}

var signals = map[Signal]syscall.Signal{
	"TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL, "INT": syscall.SIGINT, "HUP": syscall.SIGHUP,
	"USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2, "QUIT": syscall.SIGQUIT, "STOP": syscall.SIGSTOP, "CONT": syscall.SIGCONT,
}

func signalName(n syscall.Signal) Signal {
	for name, s := range signals {
		if s == n {
			return name
		}
	}
	switch n {
	case syscall.SIGSEGV:
		return "SEGV"
	case syscall.SIGABRT:
		return "ABRT"
	case syscall.SIGPIPE:
		return "PIPE"
	}
	return Signal(strconv.Itoa(int(n)))
}

func (l *local) ReadFile(ctx context.Context, path string, limit int64) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, ended(ctx, false, "read %s on %s", path, l)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, l.fail("read", err)
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, l.fail("read", err)
	}
	if int64(len(b)) > limit {
		return nil, tooLarge(l, path, limit)
	}
	return b, nil
}

func tooLarge(m Machine, path string, limit int64) error {
	return steps.Errorf("too-large", "read %s on %s: it is larger than %d bytes", path, m, limit)
}

// fail wraps an error of package os, which names operation and path itself.
func (l *local) fail(what string, err error) error {
	return fmt.Errorf("%s on %s: %w", what, l, err)
}

func (l *local) WriteFile(ctx context.Context, path string, content []byte, mode fs.FileMode) (err error) {
	if ctx.Err() != nil {
		return ended(ctx, false, "write %s on %s", path, l)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s on %s: %w", path, l, err)
		}
	}()
	old, err := os.Stat(path)
	switch {
	case err == nil:
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return err
		}
		if !old.Mode().IsRegular() {
			return fmt.Errorf("it is no regular file: %s", old.Mode().Type())
		}
		if mode == 0 {
			mode = old.Mode().Perm()
		}
	case errors.Is(err, fs.ErrNotExist):
		if link, lerr := os.Lstat(path); lerr == nil && link.Mode()&fs.ModeSymlink != 0 {
			return fmt.Errorf("it is a symbolic link to nothing: %w", err)
		}
		if mode == 0 {
			mode = 0o644
		}
	default:
		return err
	}
	dir := filepath.Dir(path)
	f, err := tempBeside(path)
	if err != nil {
		return err
	}
	done := false
	defer func() {
		_ = f.Close()
		if !done {
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(content); err != nil {
		return err
	}
	if old != nil {
		if was, ok := old.Sys().(*syscall.Stat_t); ok && (int(was.Uid) != os.Geteuid() || int(was.Gid) != os.Getegid()) {
			if err = f.Chown(int(was.Uid), int(was.Gid)); err != nil {
				return fmt.Errorf("keep its owner: %w", err)
			}
		}
	}
	if err = f.Chmod(mode); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	done = true
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return d.Sync()
}

func (l *local) Remove(ctx context.Context, path string) error {
	if ctx.Err() != nil {
		return ended(ctx, false, "remove %s on %s", path, l)
	}
	if err := os.RemoveAll(path); err != nil {
		return l.fail("remove", err)
	}
	return nil
}

func (l *local) Mkdir(ctx context.Context, path string, mode fs.FileMode) error {
	if ctx.Err() != nil {
		return ended(ctx, false, "make directory %s on %s", path, l)
	}
	if err := os.MkdirAll(path, mode); err != nil {
		return l.fail("make directory", err)
	}
	return nil
}

func (l *local) Stat(ctx context.Context, path string) (File, error) {
	if ctx.Err() != nil {
		return File{}, ended(ctx, false, "look at %s on %s", path, l)
	}
	i, err := os.Lstat(path)
	if err != nil {
		return File{}, l.fail("look at", err)
	}
	return toFile(i), nil
}

func toFile(i fs.FileInfo) File {
	f := File{Name: i.Name(), Size: i.Size(), Mode: i.Mode(), Modified: i.ModTime()}
	if s, ok := i.Sys().(*syscall.Stat_t); ok {
		f.UID, f.GID = int(s.Uid), int(s.Gid)
	}
	return f
}

func (l *local) List(ctx context.Context, path string) ([]File, error) {
	if ctx.Err() != nil {
		return nil, ended(ctx, false, "list %s on %s", path, l)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, l.fail("list", err)
	}
	files := make([]File, 0, len(entries))
	for _, e := range entries {
		i, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since
		}
		if err != nil {
			return nil, l.fail("list", err)
		}
		files = append(files, toFile(i))
	}
	return files, nil
}

func (l *local) RealPath(ctx context.Context, path string) (string, error) {
	if ctx.Err() != nil {
		return "", ended(ctx, false, "resolve %s on %s", path, l)
	}
	p, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", l.fail("resolve", err)
	}
	return p, nil
}

func (l *local) Listening(ctx context.Context, port int) (Listener, error) {
	if ctx.Err() != nil {
		return Listener{}, ended(ctx, false, "look for listeners on port %d on %s", port, l)
	}
	var table strings.Builder
	for i, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(name)
		if err != nil && i == 0 { // tcp6 is absent where IPv6 is switched off
			return Listener{}, l.fail("look for listeners", err)
		}
		table.Write(b)
	}
	r := Listener{Port: port}
	var inodes []string
	r.Addrs, inodes = parseListeners(port, table.String())
	r.Open = len(r.Addrs) > 0
	if len(inodes) > 0 {
		r.PID, r.Process = socketOwner(inodes)
	}
	return r, nil
}

// socketOwner finds a process that holds one of the sockets; 0 where this user may not see it.
func socketOwner(inodes []string) (int, string) {
	want := make([]string, len(inodes))
	for i, n := range inodes {
		want[i] = "socket:[" + n + "]"
	}
	procs, _ := os.ReadDir("/proc")
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		dir := "/proc/" + p.Name() + "/fd"
		fds, _ := os.ReadDir(dir)
		for _, fd := range fds {
			if link, err := os.Readlink(dir + "/" + fd.Name()); err == nil && slices.Contains(want, link) {
				cmdline, _ := os.ReadFile("/proc/" + p.Name() + "/cmdline")
				return pid, title(string(cmdline))
			}
		}
	}
	return 0, ""
}

// title is a command line for people. One that a process gives itself is padded to the
// length of its first one.
func title(cmdline string) string {
	return strings.TrimSpace(strings.Join(splitNul(cmdline), " "))
}

func (l *local) Dial(ctx context.Context, addr string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err == nil {
		return c, nil
	}
	if ctx.Err() != nil {
		return nil, ended(ctx, false, "connect to %s from %s", addr, l)
	}
	return nil, dialError(addr, l, err)
}

// dialError tells a refusal from a silence: nothing was sent in either.
func dialError(addr string, m Machine, err error) *steps.Error {
	kind := "unreachable"
	var t net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		kind = "refused"
	case errors.As(err, &t) && t.Timeout():
		kind = "timeout"
	}
	return steps.Temporarily(kind, fmt.Errorf("connect to %s from %s: %w", addr, m, err))
}

func (l *local) Look(ctx context.Context, name string, versionArgs ...string) (Tool, error) {
	if ctx.Err() != nil {
		return Tool{}, ended(ctx, false, "look for command %s on %s", name, l)
	}
	path, err := exec.LookPath(name)
	if err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			err = fmt.Errorf("not in PATH: %w", fs.ErrNotExist)
		}
		return Tool{}, fmt.Errorf("look for command %s on %s: %w", name, l, err)
	}
	if path, err = filepath.Abs(path); err != nil {
		return Tool{}, l.fail("look for command "+name, err)
	}
	t := Tool{Path: path}
	if len(versionArgs) == 0 {
		return t, nil
	}
	return askVersion(ctx, l, t, versionArgs)
}

// askVersion runs a command found with the arguments that make it tell its version. It
// may run on a machine that is only looked at: telling a version changes nothing.
func askVersion(ctx context.Context, m Machine, t Tool, args []string) (Tool, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, versionTimeout, errNoVersion)
	defer cancel()
	r, err := m.Run(ctx, Command{Argv: append([]string{t.Path}, args...), Limit: 8 << 10, Grace: 100 * time.Millisecond})
	if err != nil && !errors.Is(err, errNoVersion) {
		return t, err
	}
	t.Output = r.Stdout.Text + r.Stderr.Text
	t.Version = versionIn(t.Output)
	return t, nil
}

const versionTimeout = 5 * time.Second

// errNoVersion: the command went on instead of telling its version.
var errNoVersion = errors.New("it did not tell its version in time")

func (l *local) Disk(ctx context.Context, path string) (Disk, error) {
	if ctx.Err() != nil {
		return Disk{}, ended(ctx, false, "look at the disk of %s on %s", path, l)
	}
	var st syscall.Statfs_t
	for {
		err := syscall.Statfs(path, &st)
		if err == nil {
			break
		}
		up := filepath.Dir(path)
		if !errors.Is(err, syscall.ENOENT) || up == path {
			return Disk{}, fmt.Errorf("look at the disk of %s on %s: %w", path, l, err)
		}
		path = up
	}
	d := Disk{Path: path, Total: int64(st.Blocks) * int64(st.Bsize), Free: int64(st.Bavail) * int64(st.Bsize)}
	var s syscall.Stat_t
	if err := syscall.Stat(path, &s); err == nil {
		for _, f := range rotationalFiles(uint64(s.Dev)) {
			if b, err := os.ReadFile(f); err == nil {
				d.Rotational = parseRotational(string(b))
				break
			}
		}
	}
	return d, nil
}

func (l *local) Facts(ctx context.Context) (Facts, error) {
	if ctx.Err() != nil {
		return Facts{}, ended(ctx, false, "ask %s for facts", l)
	}
	var f Facts
	var err error
	if f.Hostname, err = os.Hostname(); err != nil {
		return f, l.fail("ask the host name", err)
	}
	f.Home, _ = os.UserHomeDir() // a user without one has none to protect
	f.User = strconv.Itoa(os.Geteuid())
	if u, err := user.Current(); err == nil {
		f.User = u.Username
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return f, l.fail("list mounts", err)
	}
	f.Mounts = parseMounts(string(mounts))
	return f, nil
}

// script runs a shell script of this package's own.
func (l *local) script(ctx context.Context, text string, stdin []byte) (Result, error) {
	return l.Run(ctx, Command{Shell: text, Stdin: stdin})
}

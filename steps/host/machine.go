// Package host is what a runbook does to a computer: run commands, look after
// files, ports and processes, here or over SSH.
//
// Start at [Machine]: everything a step may do on a computer, the same for this
// one ([Local]), one behind SSH ([DialSSH]) and a simulated one that an adapter may
// bring. [Target] is the target kind `host` that opens one, [Of] and [ForSession]
// are how a kind of any package gets the machine it was told to act on. The kinds
// host.* follow, one a file; exec stands in steps/core because it is one word.
package host

import (
	"context"
	"io/fs"
	"net"
	"os"
	"time"
)

// Machine is a computer. All its methods take the context's end as an order to stop
// soon; the error is then the context's cause, wrapped, and says whether the outcome
// is known. Paths are absolute. A missing file or process wraps [fs.ErrNotExist].
// No secret of a Command appears in an argument list, an error or a file that stays.
//
// A machine opened read-only refuses Run, Start, Signal, WriteFile, Mkdir and Remove.
// A Machine that also is an [io.Closer] is closed when the run lets go of it.
type Machine interface {
	// String names the machine in errors: "localhost", "deploy@10.0.0.7:22".
	String() string

	// Run runs a command to its end. A command that ended by itself is no error,
	// whatever its code; one that could not be started is (kind not-found or start);
	// one that was cancelled, timed out or lost is an error with unknown outcome,
	// and what it printed until then is still in the result. On cancel its whole
	// process group gets SIGTERM, then SIGKILL after the grace.
	Run(ctx context.Context, c Command) (Result, error)
	// Start starts a process that goes on by itself, its output appended to Spawn.Output.
	Start(ctx context.Context, s Spawn) (Process, error)
	// Process looks at a process. One that has ended, a zombie too, is fs.ErrNotExist.
	Process(ctx context.Context, pid int) (Process, error)
	// Signal sends a signal to a process, if it still is the one that p describes;
	// otherwise fs.ErrNotExist. With group its whole process group gets it.
	Signal(ctx context.Context, p Process, sig Signal, group bool) error

	// ReadFile reads a file of at most limit bytes; a larger one is an error of kind too-large.
	ReadFile(ctx context.Context, path string, limit int64) ([]byte, error)
	// WriteFile replaces a file's content so that a crash leaves the old or the new one,
	// never a mixture: a temporary file beside it, fsync, rename, fsync of the directory.
	// A mode of 0 keeps that of the file replaced (0644 for a new one); its owner is kept.
	// A path that is a symbolic link replaces what it points to.
	WriteFile(ctx context.Context, path string, content []byte, mode fs.FileMode) error
	// Remove removes a file or a whole tree, links not followed. One that is absent is no error.
	Remove(ctx context.Context, path string) error
	// Mkdir makes a directory and the parents it lacks. One that is there is no error.
	Mkdir(ctx context.Context, path string, mode fs.FileMode) error
	// Stat describes a file; a symbolic link itself, not what it points to.
	Stat(ctx context.Context, path string) (File, error)
	// List gives a directory's entries, by name.
	List(ctx context.Context, path string) ([]File, error)
	// RealPath resolves every symbolic link of a path that exists.
	RealPath(ctx context.Context, path string) (string, error)

	// Listening tells who listens on a TCP port, on any address.
	Listening(ctx context.Context, port int) (Listener, error)
	// Dial connects to host:port from there.
	Dial(ctx context.Context, addr string) (net.Conn, error)
	// Look finds a command in PATH (or at a path, where name has a slash), and asks it for its version with
	// versionArgs; none: no version is asked for. An absent one is fs.ErrNotExist.
	Look(ctx context.Context, name string, versionArgs ...string) (Tool, error)
	// Disk describes the file system that holds a path, or its nearest parent that exists.
	Disk(ctx context.Context, path string) (Disk, error)
	// Facts tells what a step must know before it removes or starts something.
	Facts(ctx context.Context) (Facts, error)
}

// Command is what [Machine.Run] runs: Argv, or Shell as one text for sh -c.
type Command struct {
	Argv  []string
	Shell string
	// Dir is the working directory; empty: the runner's own here, the home directory over SSH.
	Dir string
	// Env is added to the environment the machine gives. It may hold secrets: it never becomes an argument.
	Env map[string]string
	// Files are written to private files (0600) that live as long as the command; the
	// variable of that name holds the path.
	Files map[string]string
	Stdin []byte
	// Limit is the most that is kept of stdout and of stderr each, half of it from the start, half from
	// the end; 0: 1 MiB.
	Limit int
	// Grace is the time between SIGTERM and SIGKILL on cancel; 0: 5 s. A context whose
	// cause has a method Grace() time.Duration overrides it.
	Grace time.Duration
	// Inherit is held open by every process of a local command, so that a later runner
	// can wait for them all to end; may be nil.
	Inherit *os.File
}

// Result is what a command left.
type Result struct {
	Code   int    // exit code; -1 where a signal ended it
	Signal Signal // what ended it, if a signal did
	Stdout Output
	Stderr Output
}

// Output is what a command printed, as far as it was kept.
type Output struct {
	Text string // with a line "… N bytes cut …" in the middle where Cut is not 0
	Cut  int64  // bytes not kept
}

// Signal is a signal's name without SIG: TERM, KILL, INT, HUP, USR1, USR2, QUIT, STOP, CONT.
type Signal string

// Spawn is what [Machine.Start] starts.
type Spawn struct {
	Argv []string
	Dir  string
	Env  map[string]string
	// Output is the file that stdout and stderr are appended to; empty: /dev/null.
	Output string
	Detach Detach
	// PIDFile gets the process's number before it becomes the command, and has it when Start returns, so that
	// a runner that dies meanwhile finds it; empty: none.
	PIDFile string
	// Unit names the transient unit of DetachSystemd; empty: systemd chooses.
	Unit string
	// Inherit: as of Command, for DetachNone alone. A detached process is meant to outlive the run.
	Inherit *os.File
}

// Detach says what a started process outlives.
type Detach string

// The ways to start a process.
const (
	DetachNone    Detach = "none"    // it ends with the run (or with the SSH connection)
	DetachSetsid  Detach = "setsid"  // a session of its own: it outlives runner and SSH
	DetachSystemd Detach = "systemd" // a transient unit: it outlives the login's end too
)

// Process is one process at one time.
type Process struct {
	PID int
	// ID differs for another process that got the same number: boot and start tick.
	ID      string
	Started time.Time
	Argv    []string // the name alone where the kernel no longer tells
}

// File is a file as Stat gives it.
type File struct {
	Name     string // its last element
	Size     int64  // bytes
	Mode     fs.FileMode
	Modified time.Time
	UID, GID int
}

// Listener tells who listens on a port.
type Listener struct {
	Port    int
	Open    bool
	Addrs   []string // addresses listened on, such as 127.0.0.1:6379
	PID     int      // 0: not visible to this user
	Process string   // its command line; empty where it is not visible
}

// Tool is a command found.
type Tool struct {
	Path    string
	Version string // the first number with dots in what it printed; empty where there was none
	Output  string // what it printed when asked
}

// Disk is a file system.
type Disk struct {
	Path        string // the existing path that was asked
	Total, Free int64  // bytes; Free is what this user may still fill
	Rotational  *bool  // nil: not known
}

// Facts of a machine.
type Facts struct {
	Hostname, User, Home string
	Mounts               []string // mount points
}

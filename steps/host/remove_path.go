package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"runbook/steps"
)

type removePathIn struct {
	Path          string        `yaml:"path,required" doc:"Absolute path of a file or directory tree, removed with everything below it."`
	Within        string        `yaml:"within,required" doc:"Absolute path of a directory that it must lie below, once symbolic links are resolved."`
	ExpectStopped expectStopped `yaml:"expect_stopped" doc:"Who must not be alive: {pidfile: PATH}, {port: N} or both."`
}

type expectStopped struct {
	Pidfile string `yaml:"pidfile" doc:"File with the number of a process that must have ended."`
	Port    int    `yaml:"port" doc:"TCP port that nobody may listen on."`
}

type removePathOut struct {
	Path   string `yaml:"path" doc:"What was removed."`
	Absent bool   `yaml:"absent" doc:"It is gone."`
}

type removePathBefore struct {
	Existed bool `json:"existed"`
}

func removePath() *steps.Kind[removePathIn, removePathOut] {
	return &steps.Kind[removePathIn, removePathOut]{
		Name: "host.remove-path",
		Doc: "Removes a file or a directory tree (rm -rf), if it lies below a directory named apart and whoever used it has stopped. " +
			"It refuses /, the home directory, mount points, and links.",
		Effect: steps.Destroy, On: []string{KindName}, TargetOptional: true, Idempotent: true,
		Example: `{id: old_data, uses: host.remove-path, with: {path: /tmp/runner-example/db, within: /tmp/runner-example, expect_stopped: {port: 9}}, why: The data was moved}`,
		Pitfalls: []string{
			"A path that is put together may come out as / or as its parent: it must lie below within.",
			"A process that still runs keeps the space of removed files and may write them anew: name it in expect_stopped.",
			"A link to the data would be removed and the data would stay: name the real path.",
		},
		Valid: validRemove,
		Check: func(ctx context.Context, v steps.View, in removePathIn) error {
			m, err := Of(ctx, v, "")
			if err != nil {
				return err
			}
			return safeToRemove(ctx, m, in)
		},
		Plan: func(ctx context.Context, v *steps.View, in removePathIn) (steps.Change, error) {
			line := steps.Line{Target: lineTarget(v), Command: "rm -rf " + quote(in.Path), To: "absent"}
			if v == nil {
				return steps.Change{Lines: []steps.Line{line}}, nil
			}
			m, err := Of(ctx, *v, "")
			if err != nil {
				return steps.Change{}, err
			}
			f, err := m.Stat(ctx, in.Path)
			if errors.Is(err, fs.ErrNotExist) {
				line.From = "absent"
				return steps.Change{Lines: []steps.Line{line}, Before: removePathBefore{}}, nil
			}
			if err != nil {
				return steps.Change{}, err
			}
			line.From = bytesText(f.Size)
			if f.Mode.IsDir() {
				entries, err := m.List(ctx, in.Path)
				if err != nil {
					return steps.Change{}, err
				}
				line.From = fmt.Sprintf("directory with %d entries", len(entries))
			}
			return steps.Change{Lines: []steps.Line{line}, Before: removePathBefore{Existed: true}}, nil
		},
		Probe: func(ctx context.Context, v steps.View, in removePathIn) (steps.State, removePathOut, error) {
			out := removePathOut{Path: in.Path}
			m, err := Of(ctx, v, "")
			if err != nil {
				return steps.Unclear, out, err
			}
			_, err = m.Stat(ctx, in.Path)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				out.Absent = true
				return steps.Done, out, nil
			case err != nil:
				return steps.Unclear, out, err
			}
			var before removePathBefore
			if started, err := v.Before(&before); err != nil || started {
				return steps.Partial, out, err // some of it may be gone
			}
			return steps.Untouched, out, nil
		},
		Apply: func(ctx context.Context, s steps.Session, in removePathIn) (removePathOut, error) {
			out := removePathOut{Path: in.Path}
			m, err := ForSession(ctx, s, "")
			if err != nil {
				return out, err
			}
			if err := safeToRemove(ctx, m, in); err != nil { // again: nothing may have moved since
				return out, err
			}
			if err := m.Remove(ctx, in.Path); err != nil {
				return out, err
			}
			out.Absent = true
			return out, nil
		},
		NoUndo: "what was removed is gone",
	}
}

func validRemove(in removePathIn, unknown func(string) bool) []steps.Problem {
	p := append(absolute("path", in.Path, unknown), absolute("within", in.Within, unknown)...)
	for input, name := range map[string]string{"path": in.Path, "within": in.Within} {
		if strings.Contains("/"+name+"/", "/../") {
			p = append(p, steps.Problem{Input: input, Message: input + " must not contain .."})
		}
	}
	if !unknown("within") && path.Clean(in.Within) == "/" {
		p = append(p, steps.Problem{Input: "within", Message: "everything lies within /: name the directory that belongs to this"})
	}
	if len(p) == 0 && !unknown("path") && !unknown("within") && !below(path.Clean(in.Path), path.Clean(in.Within)) {
		p = append(p, steps.Problem{Input: "path", Message: fmt.Sprintf("%s does not lie below %s", in.Path, in.Within)})
	}
	if in.ExpectStopped.Pidfile != "" && !unknown("expect_stopped") {
		p = append(p, absolute("expect_stopped", in.ExpectStopped.Pidfile, unknown)...)
	}
	return p
}

// below tells whether a path lies strictly below a directory; both are clean.
func below(name, dir string) bool {
	return dir == "/" && name != "/" || strings.HasPrefix(name, dir+"/")
}

// safeToRemove refuses what must not be removed. A path that is absent is safe.
func safeToRemove(ctx context.Context, m Machine, in removePathIn) error {
	refuse := func(format string, a ...any) *steps.Error {
		return steps.Precondition("remove %s on %s: refused, %s", in.Path, m, fmt.Sprintf(format, a...))
	}
	if p := validRemove(in, func(string) bool { return false }); len(p) > 0 {
		return refuse("%s", p[0].Message)
	}
	name := path.Clean(in.Path)
	f, err := m.Stat(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if f.Mode&fs.ModeSymlink != 0 {
		return refuse("it is a symbolic link, and what it points to would stay").WithHint("name the real path")
	}
	within, err := m.RealPath(ctx, in.Within)
	if err != nil {
		return err
	}
	parent, err := m.RealPath(ctx, path.Dir(name))
	if err != nil {
		return err
	}
	name = path.Join(parent, path.Base(name))
	if !below(name, within) {
		return refuse("it is really %s, which does not lie below %s", name, within)
	}
	facts, err := m.Facts(ctx)
	if err != nil {
		return err
	}
	if home := path.Clean(facts.Home); facts.Home != "" && (home == name || below(home, name)) {
		return refuse("the home directory %s lies in it", home)
	}
	for _, mount := range facts.Mounts {
		if mount == name || below(mount, name) {
			return refuse("%s is a mount point", mount)
		}
	}
	return stopped(ctx, m, in.ExpectStopped, refuse)
}

func stopped(ctx context.Context, m Machine, e expectStopped, refuse func(string, ...any) *steps.Error) error {
	if e.Port != 0 {
		l, err := m.Listening(ctx, e.Port)
		if err != nil {
			return err
		}
		if l.Open {
			return refuse("port %d is still open (%s)", e.Port, l.Process).WithHint("stop it first")
		}
	}
	if e.Pidfile == "" {
		return nil
	}
	p, alive, err := fromPidfile(ctx, m, e.Pidfile)
	if err != nil {
		return err
	}
	if alive {
		return refuse("process %d of %s is alive (%s)", p.PID, e.Pidfile, strings.Join(p.Argv, " ")).WithHint("stop it first")
	}
	return nil
}

// fromPidfile finds the process that a pidfile names; false where file or process is absent.
func fromPidfile(ctx context.Context, m Machine, file string) (Process, bool, error) {
	b, err := m.ReadFile(ctx, file, 64)
	if errors.Is(err, fs.ErrNotExist) {
		return Process{}, false, nil
	}
	if err != nil {
		return Process{}, false, err
	}
	text := strings.TrimSpace(string(b))
	if text == "" {
		return Process{}, false, nil // just being written, or left by a crash
	}
	pid, err := strconv.Atoi(text)
	if err != nil || pid <= 1 {
		return Process{}, false, steps.Errorf("reply", "pidfile %s on %s holds %.20q, no process number", file, m, text)
	}
	p, err := m.Process(ctx, pid)
	if errors.Is(err, fs.ErrNotExist) {
		return Process{}, false, nil
	}
	return p, err == nil, err
}

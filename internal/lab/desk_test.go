package lab

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// state is the state directory of the site's last run: each has its own, so that its journal is not taken for that of another.
func (s *site) state() string { return s.path(fmt.Sprintf("state-%d", s.runs)) }

// session is one process of the runner.
type session struct {
	*process
	args []string
}

// runner starts the program: exec begins a run, what else there is is about the last one.
func (s *site) runner(args ...string) *session {
	s.t.Helper()
	if args[0] == "exec" {
		s.runs++
	}
	if err := os.RemoveAll(s.path("runner.out")); err != nil {
		s.t.Fatal(err)
	}
	argv := append([]string{lab.runner}, args...)
	return &session{process: s.start("runner", append(argv, "--state", s.state(), "--as", "lab")...), args: args}
}

// code waits for its end and gives its exit code; -1 where a signal ended it.
func (r *session) code() int {
	r.s.t.Helper()
	limit := time.NewTimer(10 * time.Minute)
	defer limit.Stop()
	select {
	case <-r.over:
	case <-limit.C:
		r.signal(syscall.SIGQUIT)
		<-r.over
		r.s.t.Fatalf("runner %v does not end\n%s", r.args, r.said())
	}
	return r.cmd.ProcessState.ExitCode()
}

func (r *session) said() string {
	text, err := os.ReadFile(r.s.path("runner.out"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (r *session) want(code int) {
	r.s.t.Helper()
	if got := r.code(); got != code {
		r.s.t.Fatalf("runner %s: exit code %d, want %d\n%s", strings.Join(r.args, " "), got, code, r.said())
	}
}

// finish resumes a run until it has succeeded, as an operator would whose servers are slow: what was put back may have to
// catch up first. It gives how often.
func (s *site) finish(r *session) int {
	s.t.Helper()
	for n := 0; ; n++ {
		code := r.code()
		if code == 0 {
			return n
		}
		if n == 4 {
			s.t.Fatalf("the run does not come to its end: exit code %d\n%s", code, r.said())
		}
		if code > 0 {
			s.t.Logf("exit code %d: %s", code, lastLine(r.said()))
		}
		r = s.runner("resume", "last", "--approve", "all", "--yes")
	}
}

// lastLine is what a run says at its end, hints apart.
func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if !strings.HasPrefix(lines[i], "help: ") && !strings.HasPrefix(lines[i], "to go on: ") {
			return lines[i]
		}
	}
	return ""
}

// guardians are the processes that watch over a runner.
func (s *site) guardians() []int { return s.processes("\x00guardian") }

// record is what the lab reads of a journal's line.
type record struct {
	Time    time.Time       `json:"time"`
	Type    string          `json:"type"`
	Step    string          `json:"step"`
	Status  string          `json:"status"`
	Outputs json.RawMessage `json:"outputs"`
}

// journal gives the whole lines of the last run's journal, also while it is written.
func (s *site) journal() []record {
	all, err := filepath.Glob(filepath.Join(s.state(), "runs", "*", "journal.jsonl"))
	if err != nil || len(all) != 1 {
		return nil
	}
	text, err := os.ReadFile(all[0])
	if err != nil {
		return nil
	}
	var records []record
	for line := range bytes.Lines(text) {
		var r record
		if json.Unmarshal(line, &r) == nil {
			records = append(records, r)
		}
	}
	return records
}

// reaches waits until the step of that name, wherever it stands, has started.
func (r *session) reaches(step string) {
	r.s.t.Helper()
	until(r.s.t, step+" starts", func() bool {
		for _, rec := range r.s.journal() {
			if rec.Type == "step-started" && last(rec.Step) == step {
				return true
			}
		}
		if !r.running() {
			r.s.t.Fatalf("the runner ended before %s:\n%s", step, r.said())
		}
		return false
	})
}

// lasted is how long the step of that name took in the last run.
func (s *site) lasted(step string) time.Duration {
	var began, ended time.Time
	for _, r := range s.journal() {
		switch {
		case last(r.Step) != step:
		case r.Type == "step-started":
			began = r.Time
		case r.Type == "step-finished":
			ended = r.Time
		}
	}
	return ended.Sub(began)
}

// last is a step's own name, without those of the parts it stands in and without the item of a loop.
func last(path string) string {
	name := path[strings.LastIndexByte(path, '/')+1:]
	name, _, _ = strings.Cut(name, "[")
	return name
}

// switches are the measured switches of the last run.
func (s *site) switches() []pause {
	s.t.Helper()
	var all []pause
	for _, r := range s.journal() {
		var out struct {
			Pause  *string
			Phases []struct{ Name, Duration string }
		}
		if r.Type != "step-finished" || r.Status != "changed" || json.Unmarshal(r.Outputs, &out) != nil || out.Pause == nil || len(out.Phases) == 0 {
			continue
		}
		p := pause{whole: s.duration(*out.Pause)}
		for _, ph := range out.Phases {
			p.phases = append(p.phases, phase{ph.Name, s.duration(ph.Duration)})
		}
		all = append(all, p)
	}
	return all
}

func (s *site) duration(text string) time.Duration {
	s.t.Helper()
	d, err := time.ParseDuration(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

// shipped is the path of a runbook of the repository.
func (s *site) shipped(name string) string {
	s.t.Helper()
	path, err := filepath.Abs(filepath.Join("../../runbooks", name))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return path
}

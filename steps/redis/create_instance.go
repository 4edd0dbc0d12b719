package redis

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path"
	"strconv"
	"strings"
	"time"

	"runbook/schema"
	"runbook/steps"
	"runbook/steps/host"
)

type createIn struct {
	Host    schema.TargetName `yaml:"host" doc:"Host target it runs on; the runner's own machine where none is given."`
	Port    int               `yaml:"port" doc:"TCP port; that of the step's redis target where none is given."`
	Dir     string            `yaml:"dir,required" doc:"Directory of its own, absolute; made if absent. It holds redis.conf, redis.pid, redis.log and the data."`
	Binary  string            `yaml:"binary" doc:"Server program: a name looked up in PATH, or an absolute path." default:"redis-server"`
	Config  map[string]any    `yaml:"config" doc:"Further settings, as in redis.conf; a list writes the setting once for each element. port, dir, daemonize, pidfile and logfile are this kind's own."`
	Reuse   bool              `yaml:"reuse_data" doc:"Start on the data that lies in dir already." default:"false"`
	Timeout time.Duration     `yaml:"ready_timeout" doc:"Longest time until it answers; loading data does not count." default:"30s"`
}

type createOut struct {
	Addr  string `yaml:"addr" doc:"Address at which it answers, host:port."`
	PID   int64  `yaml:"pid" doc:"Number of its process, on its machine."`
	RunID string `yaml:"run_id" doc:"Id of its process; another one after every restart."`
}

func createInstance() *steps.Kind[createIn, createOut] {
	return &steps.Kind[createIn, createOut]{
		Name:           "redis.create-instance",
		Doc:            "Starts a Redis server in a directory of its own and waits until it answers. Writes DIR/redis.conf (mode 0600), runs the server program on it, which goes to the background, and sends PING until it is ready. The step's target is the redis target that it makes true; without one, host and port say where.",
		Effect:         steps.Write,
		On:             []string{KindName},
		TargetOptional: true,
		Idempotent:     true,
		Example:        `{id: start_new, uses: redis.create-instance, target: redis9, with: {dir: /var/lib/redis/6390, config: {appendonly: true, maxmemory: 4gb}}}`,
		Pitfalls: []string{
			"A port that somebody else listens on, and a directory in which another instance runs, are refused before anything is written.",
			"A directory that holds data is refused unless reuse_data is given: the server would load it and serve it.",
			"Without bind and without a password a server takes connections from its own machine only (protected mode): give bind and requirepass in config.",
			"The undo stops the server and keeps its directory; what is in it is removed by redis.remove-instance.",
			"It is nobody's service: it does not come back after the machine restarts.",
		},
		Valid:    validCreate,
		Check:    checkCreate,
		Plan:     planCreate,
		Probe:    probeCreate,
		Apply:    applyCreate,
		Undo:     undoCreate,
		UndoPlan: func(in createIn) string { return "SHUTDOWN, keeping " + in.Dir },
	}
}

func validCreate(in createIn, unknown func(string) bool) []steps.Problem {
	var p []steps.Problem
	bad := func(input, format string, a ...any) {
		p = append(p, steps.Problem{Input: input, Message: fmt.Sprintf(format, a...)})
	}
	if !unknown("dir") && (!path.IsAbs(in.Dir) || path.Clean(in.Dir) == "/") {
		bad("dir", "an absolute path, and not /")
	}
	if !unknown("port") && (in.Port < 0 || in.Port > 65535) {
		bad("port", "%d is not a port (1 to 65535)", in.Port)
	}
	if unknown("config") {
		return p
	}
	for _, name := range sortedKeys(in.Config) {
		switch strings.ToLower(name) {
		case "port", "dir", "daemonize", "pidfile", "logfile", "supervised":
			bad("config", "%s is this kind's own", name)
		}
		if _, err := configLines(name, in.Config[name]); err != nil {
			bad("config", "%s", err)
		}
	}
	return p
}

// configLines writes one setting as redis.conf wants it.
func configLines(name string, value any) ([]string, error) {
	if name == "" || strings.ContainsAny(name, " \t\r\n#\"'") {
		return nil, fmt.Errorf("%q is not the name of a setting", name)
	}
	if list, ok := value.([]any); ok {
		var lines []string
		for _, v := range list {
			l, err := configLines(name, v)
			if err != nil {
				return nil, err
			}
			lines = append(lines, l...)
		}
		return lines, nil
	}
	text, ok := scalarText(value)
	switch {
	case !ok:
		return nil, fmt.Errorf("%s: a text, a number, true, false or a list of these is expected", name)
	case strings.ContainsAny(text, "\r\n\x00"):
		return nil, fmt.Errorf("%s: a setting is one line", name)
	case text == "":
		return []string{name + ` ""`}, nil
	case IsSecretSetting(name) || strings.HasSuffix(strings.ToLower(name), "file") || strings.HasSuffix(strings.ToLower(name), "name"):
		return []string{name + " " + confQuote(text)}, nil // one word, whatever is in it
	}
	return []string{name + " " + text}, nil
}

func confQuote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// conf gives the lines of redis.conf; shown: as people may see them.
func (in createIn) conf(port int) (lines, shownLines []string, err error) {
	add := func(l ...string) {
		lines = append(lines, l...)
		shownLines = append(shownLines, l...)
	}
	if port != 0 {
		add("port " + strconv.Itoa(port))
	}
	dir := path.Clean(in.Dir)
	add("dir "+confQuote(dir), "daemonize yes", "pidfile "+confQuote(path.Join(dir, pidFile)), "logfile "+confQuote(path.Join(dir, logFile)))
	for _, name := range sortedKeys(in.Config) {
		l, err := configLines(name, in.Config[name])
		if err != nil {
			return nil, nil, steps.Errorf("input", "config: %w", err)
		}
		lines = append(lines, l...)
		if IsSecretSetting(name) {
			l = []string{name + " " + masked}
		}
		shownLines = append(shownLines, l...)
	}
	return lines, shownLines, nil
}

const (
	confFile = "redis.conf"
	pidFile  = "redis.pid"
	logFile  = "redis.log"
)

// client gives a client for the instance, that the caller closes. Its password is the target's, or
// else the one the instance is started with.
func (in createIn) client(ctx context.Context, v steps.View, addr string, a steps.Access) (*Client, error) {
	cfg, dial := Config{}, (&net.Dialer{}).DialContext
	if t, err := v.Target(""); err == nil && t.Kind == KindName {
		c, err := Target().View(ctx, v, "")
		if err != nil {
			return nil, err
		}
		cfg, dial = c.cfg, c.dial
	} else if pass, ok := in.Config["requirepass"]; ok {
		text, _ := scalarText(pass)
		cfg.Password = schema.NewSecret(text)
	}
	cfg.Addr, cfg.DB = schema.Addr(addr), 0
	return Open(cfg, a, Dialect{}).Via(dial), nil
}

// site is all that the parts of the kind need to find.
type site struct {
	addr string
	m    host.Machine
	c    *Client
}

func (in createIn) site(ctx context.Context, v steps.View) (site, error) {
	addr, err := instanceAddr(v, in.Host, in.Port)
	if err != nil {
		return site{}, err
	}
	m, err := machineView(ctx, v, in.Host)
	if err != nil {
		return site{}, err
	}
	c, err := in.client(ctx, v, addr, steps.ReadOnly)
	return site{addr: addr, m: m, c: c}, err
}

func checkCreate(ctx context.Context, v steps.View, in createIn) error {
	st, err := in.site(ctx, v)
	if err != nil {
		return err
	}
	defer func() { _ = st.c.Close() }()
	what := fmt.Sprintf("create an instance at %s in %s", st.addr, in.Dir)
	if ours, err := in.running(ctx, st); err != nil || ours {
		return err
	}
	if _, err := st.m.Look(ctx, in.Binary); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return steps.Precondition("%s: there is no %s on %s", what, in.Binary, st.m).WithHint("install it, or give binary")
		}
		return err
	}
	port := portOf(st.addr)
	l, err := st.m.Listening(ctx, port)
	if err != nil {
		return err
	}
	if l.Open {
		return steps.Precondition("%s: port %d of %s is taken%s", what, port, st.m, byWhom(l))
	}
	return in.dirFree(ctx, st, what)
}

func byWhom(l host.Listener) string {
	switch {
	case l.Process != "":
		return fmt.Sprintf(" by process %d (%s)", l.PID, l.Process)
	case l.PID != 0:
		return fmt.Sprintf(" by process %d", l.PID)
	}
	return ""
}

// running tells whether the instance wanted is there. One with another directory at the address is an error.
func (in createIn) running(ctx context.Context, st site) (bool, error) {
	who, err := st.c.knock(ctx)
	switch who {
	case nobody:
		return false, nil
	case cannotSay:
		return false, err
	case noLogin:
		return false, steps.Precondition("create an instance at %s: something answers there and asks for another password", st.addr)
	}
	ours, err := st.c.runsIn(ctx, st.m, in.Dir)
	if err != nil || ours {
		return ours, err
	}
	return false, steps.Precondition("create an instance at %s: another one answers there, which does not run in %s", st.addr, in.Dir)
}

// dirFree refuses a directory that another process works in, or that holds data nobody asked to serve.
func (in createIn) dirFree(ctx context.Context, st site, what string) error {
	entries, err := st.m.List(ctx, in.Dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	for _, f := range entries {
		switch {
		case f.Name == pidFile:
			if p, live := livePID(ctx, st.m, path.Join(in.Dir, pidFile)); live {
				return steps.Precondition("%s: process %d (%s) runs in that directory", what, p.PID, strings.Join(p.Argv, " "))
			}
		case in.Reuse:
		case strings.HasSuffix(f.Name, ".rdb") || strings.HasSuffix(f.Name, ".aof") || f.Name == "appendonlydir":
			return steps.Precondition("%s: the directory holds data (%s)", what, f.Name).WithHint("reuse_data: true serves it; otherwise take another directory")
		}
	}
	return nil
}

func livePID(ctx context.Context, m host.Machine, file string) (host.Process, bool) {
	b, err := m.ReadFile(ctx, file, 64)
	if err != nil {
		return host.Process{}, false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 0 {
		return host.Process{}, false
	}
	p, err := m.Process(ctx, pid)
	if err != nil || !strings.Contains(strings.Join(p.Argv, " "), "redis") { // a number used again by another program
		return host.Process{}, false
	}
	return p, true
}

func planCreate(ctx context.Context, v *steps.View, in createIn) (steps.Change, error) {
	where, port := "", in.Port
	if v != nil {
		addr, err := instanceAddr(*v, in.Host, in.Port)
		if err != nil {
			return steps.Change{}, err
		}
		port = portOf(addr)
	}
	if in.Host != "" {
		where = string(in.Host)
	}
	_, lines, err := in.conf(port)
	if err != nil {
		if v == nil { // not all known yet
			return steps.Change{}, nil
		}
		return steps.Change{}, err
	}
	file := path.Join(path.Clean(in.Dir), confFile)
	write := steps.Line{Target: where, Command: "write " + quote(file), To: strings.Join(lines, "; ")}
	if v == nil {
		write.Body = strings.Join(lines, "\n")
	}
	change := steps.Change{Lines: []steps.Line{
		{Target: where, Command: "mkdir -p " + quote(path.Clean(in.Dir))},
		write,
		{Target: where, Command: Line([]string{in.Binary, file})},
	}}
	return change, nil
}

func probeCreate(ctx context.Context, v steps.View, in createIn) (steps.State, createOut, error) {
	st, err := in.site(ctx, v)
	if err != nil {
		return steps.Unclear, createOut{}, err
	}
	defer func() { _ = st.c.Close() }()
	who, err := st.c.knock(ctx)
	switch who {
	case nobody:
		return steps.Untouched, createOut{}, nil
	case cannotSay:
		return steps.Unclear, createOut{}, err
	case noLogin:
		return steps.Untouched, createOut{}, nil // not the one wanted: the check says so
	}
	ours, err := st.c.runsIn(ctx, st.m, in.Dir)
	if err != nil {
		return steps.Unclear, createOut{}, err
	}
	if !ours {
		return steps.Untouched, createOut{}, nil
	}
	i, err := st.c.Info(ctx)
	if err != nil {
		return steps.Unclear, createOut{}, err
	}
	out := createOut{Addr: st.addr, PID: i.PID, RunID: i.RunID}
	if who == loading {
		return steps.Partial, out, nil
	}
	return steps.Done, out, nil
}

func applyCreate(ctx context.Context, s steps.Session, in createIn) (createOut, error) {
	st, err := in.site(ctx, s.View)
	if err != nil {
		return createOut{}, err
	}
	defer func() { _ = st.c.Close() }()
	ours, err := in.running(ctx, st)
	if err != nil {
		return createOut{}, err
	}
	if !ours {
		if err := in.start(ctx, s, st); err != nil {
			return createOut{}, err
		}
	}
	if err := in.await(ctx, s.View, st); err != nil {
		return createOut{}, err
	}
	i, err := st.c.Info(ctx)
	return createOut{Addr: st.addr, PID: i.PID, RunID: i.RunID}, err
}

// start writes the configuration and starts the server on it.
func (in createIn) start(ctx context.Context, s steps.Session, st site) error {
	m, err := machineSession(ctx, s, in.Host)
	if err != nil {
		return err
	}
	lines, _, err := in.conf(portOf(st.addr))
	if err != nil {
		return err
	}
	dir := path.Clean(in.Dir)
	file := path.Join(dir, confFile)
	if err := m.Mkdir(ctx, dir, 0o750); err != nil {
		return err
	}
	if err := m.WriteFile(ctx, file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	r, err := m.Run(ctx, host.Command{Argv: []string{in.Binary, file}, Dir: dir, Limit: 16 << 10})
	if err != nil {
		return err
	}
	if r.Code != 0 {
		return steps.Errorf("exit", "%s %s on %s: exit code %d: %s", in.Binary, file, m, r.Code, in.hide(lastLine(r.Stdout.Text+"\n"+r.Stderr.Text)))
	}
	return nil
}

// await waits until the server answers. The program has gone to the background before it
// binds its port or reads its data, so its exit code says little.
func (in createIn) await(ctx context.Context, v steps.View, st site) error {
	req := request{addr: st.addr, args: []string{in.Binary, path.Join(in.Dir, confFile)}}
	limit := in.Timeout
	if limit <= 0 {
		limit = 30 * time.Second
	}
	for start := v.Now(); ; {
		who, _ := st.c.knock(ctx)
		switch {
		case who == ready:
			ours, err := st.c.runsIn(ctx, st.m, in.Dir)
			if err == nil && !ours {
				err = steps.Errorf("conflict", "start an instance at %s: another one answers there, which does not run in %s", st.addr, in.Dir)
			}
			return err
		case who == noLogin:
			return steps.Errorf("auth", "start an instance at %s: it asks for another password than the target has", st.addr).
				WithHint("requirepass in config and the target's password must be the same")
		case who == loading:
			start = v.Now()
			v.Progress(steps.Progress{Text: st.addr + " loads its data"})
		case ctx.Err() != nil:
			return ended(ctx, req, true)
		case v.Now().Sub(start) > limit:
			e := steps.Errorf("timeout", "start an instance at %s: it does not answer within %s: %s", st.addr, limit, in.hide(in.lastLog(ctx, st.m))).
				WithHint("see %s", path.Join(in.Dir, logFile))
			e.Unknown = true // it may come up yet
			return e
		}
		if err := v.Sleep(ctx, pollEvery); err != nil {
			return ended(ctx, req, true)
		}
	}
}

// hide takes the secrets of the configuration out of a text of the server's.
func (in createIn) hide(text string) string {
	for name, v := range in.Config {
		if s, ok := scalarText(v); ok && IsSecretSetting(name) {
			text = hide(text, s)
		}
	}
	return text
}

func (in createIn) lastLog(ctx context.Context, m host.Machine) string {
	b, err := m.ReadFile(ctx, path.Join(in.Dir, logFile), 1<<20)
	if err != nil {
		return "its log cannot be read"
	}
	return lastLine(string(b))
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

func undoCreate(ctx context.Context, s steps.Session, in createIn, _ *createOut) error {
	st, err := in.site(ctx, s.View)
	if err != nil {
		return err
	}
	defer func() { _ = st.c.Close() }()
	who, err := st.c.knock(ctx)
	switch who {
	case nobody:
		return nil
	case cannotSay:
		return err
	}
	ours, err := st.c.runsIn(ctx, st.m, in.Dir)
	if err != nil {
		return err
	}
	if !ours {
		return nil // another one has the address: this step's is not there
	}
	i, err := st.c.Info(ctx)
	if err != nil {
		return err
	}
	w, err := in.client(ctx, s.View, st.addr, steps.ReadWrite)
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }()
	return w.down(ctx, s.View, i.Keys > 0, i.RunID)
}

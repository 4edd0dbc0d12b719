package pika

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"runbook/schema"
	"runbook/steps"
	"runbook/steps/host"
	"runbook/steps/redis"
)

type createIn struct {
	Host    schema.TargetName `yaml:"host" doc:"Host target it runs on; the runner's own machine where none is given."`
	Port    int               `yaml:"port" doc:"TCP port; that of the step's pika target where none is given. Others that its release needs stand at fixed distances from it."`
	Dir     string            `yaml:"dir,required" doc:"Directory of its own, absolute; made if absent. It holds pika.conf, pika.pid, pika.out and the folders db, log, dump and dbsync."`
	Binary  string            `yaml:"binary" doc:"Server program: a name looked up in PATH, or an absolute path." default:"pika"`
	Config  map[string]any    `yaml:"config" doc:"Further settings, as in pika.conf (name : value). port, the paths, daemonize and pidfile are this kind's own."`
	Slots   int               `yaml:"slots" doc:"Number of slots that it will hold (mode sharding): disk and open files are checked for so many." default:"1"`
	Reuse   bool              `yaml:"reuse_data" doc:"Start on the data that lies in dir already." default:"false"`
	Timeout time.Duration     `yaml:"ready_timeout" doc:"Longest time until it answers; many slots take minutes to open." default:"5m"`
}

type createOut struct {
	Addr string `yaml:"addr" doc:"Address at which it answers, IP:port."`
	PID  int64  `yaml:"pid" doc:"Number of its process, on its machine."`
}

func createInstance() *steps.Kind[createIn, createOut] {
	return &steps.Kind[createIn, createOut]{
		Name: "pika.create-instance",
		Doc: "Starts a Pika server in a directory of its own and waits until it answers. Writes DIR/pika.conf (mode 0600), runs the server program on it in a session of its own, and sends PING until it is ready. " +
			"The step's target is the pika target that it makes true; without one, host and port say where.",
		Effect:         steps.Write,
		On:             []string{KindName},
		TargetOptional: true,
		Idempotent:     true,
		Example: `{id: start_new, uses: pika.create-instance, target: pika5, with: {host: machine5, dir: /var/lib/pika/9225, slots: 512, ` +
			`config: {instance-mode: sharding, default-slot-num: 1024, write-buffer-size: 67108864}}}`,
		Pitfalls: []string{
			"A server aborts at start where one of its ports is taken (port + 1000 and + 2000, up to 3.0 others) or rsync is missing, and says so in a log alone: all of it is checked before anything is written.",
			"rsync of a server that was stopped lives on at its port, and the next start in the same directory adopts it with its old password: one of this directory is let be, one of another is refused. Undo ends it together with the server.",
			"An empty slot takes some 22 MB of disk and 26 open files, and the first write to it 1.1 x write-buffer-size (256 MB by default): disk and the limit of open files are checked for the slots that it will hold.",
			"Without network-interface it takes the address of the default route for its own, and a full sync fails where replicas were told another one. Set it on a machine with several addresses.",
			"With requirepass and without userpass, Pika 3.4 lets clients in that have not logged in: set both.",
			"Undo stops the server and keeps its directory. It is nobody's service: it does not come back after the machine restarts, and after a restart no slot follows anybody.",
		},
		Valid:    validCreate,
		Check:    checkCreate,
		Plan:     planCreate,
		Probe:    probeCreate,
		Apply:    applyCreate,
		Undo:     undoCreate,
		UndoPlan: func(in createIn) string { return "SIGTERM to it and to its rsync daemon, keeping " + in.Dir },
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
	if strings.ContainsAny(in.Dir, " \t\r\n#") {
		bad("dir", "pika.conf takes no spaces and no # in a path")
	}
	if !unknown("port") && (in.Port < 0 || in.Port > 65535-10001) {
		bad("port", "%d leaves no room for the ports beside it (1 to %d)", in.Port, 65535-10001)
	}
	if !unknown("slots") && in.Slots < 0 {
		bad("slots", "%d is no number of slots", in.Slots)
	}
	for _, name := range slices.Sorted(maps.Keys(in.Config)) {
		if slices.Contains(ownSettings, name) {
			bad("config", "%s is this kind's own", name)
		}
		if _, err := confLine(name, in.Config[name]); err != nil && !unknown("config") {
			bad("config", "%s", err)
		}
	}
	return p
}

// ownSettings are those that create-instance writes itself.
var ownSettings = []string{"port", "db-path", "log-path", "dump-path", "db-sync-path", "pidfile", "daemonize"}

const (
	confFile = "pika.conf"
	pidFile  = "pika.pid"
	outFile  = "pika.out"
)

// confLine writes one setting as pika.conf wants it.
func confLine(name string, value any) (string, error) {
	if name == "" || strings.ContainsAny(name, " \t\r\n:#") {
		return "", fmt.Errorf("%q is not the name of a setting", name)
	}
	text := ""
	switch v := value.(type) {
	case nil:
	case bool:
		text = map[bool]string{true: "yes", false: "no"}[v]
	case string:
		text = v
	case int, int64, float64, schema.Size:
		text = fmt.Sprint(v)
	default:
		return "", fmt.Errorf("%s: a text, a number, true or false is expected", name)
	}
	if strings.ContainsAny(text, "\r\n\x00") {
		return "", fmt.Errorf("%s: a setting is one line", name)
	}
	return strings.TrimRight(name+" : "+text, " "), nil
}

// conf gives the lines of pika.conf; shown: as people may see them.
func (in createIn) conf(port int) (lines, shown []string, err error) {
	dir := path.Clean(in.Dir)
	lines = []string{
		fmt.Sprintf("port : %d", port), "db-path : " + dir + "/db/", "log-path : " + dir + "/log/",
		"dump-path : " + dir + "/dump/", "db-sync-path : " + dir + "/dbsync/", "daemonize : no",
	}
	shown = slices.Clone(lines)
	for _, name := range slices.Sorted(maps.Keys(in.Config)) {
		line, err := confLine(name, in.Config[name])
		if err != nil {
			return nil, nil, steps.Errorf("input", "config: %w", err)
		}
		lines = append(lines, line)
		if redis.IsSecretSetting(name) {
			line = name + " : ***"
		}
		shown = append(shown, line)
	}
	return lines, shown, nil
}

func (in createIn) argv() []string { return []string{in.Binary, "-c", in.file(confFile)} }

func (in createIn) file(name string) string { return path.Join(in.Dir, name) }

func checkCreate(ctx context.Context, v steps.View, in createIn) error {
	st, err := in.site(ctx, v)
	if err != nil {
		return err
	}
	defer func() { _ = st.c.Close() }()
	if ours, err := st.running(ctx, in); err != nil || ours {
		return err
	}
	release, err := in.release(ctx, v, st)
	if err != nil {
		return err
	}
	if _, err := st.m.Look(ctx, "rsync"); errors.Is(err, fs.ErrNotExist) {
		return st.refused(in, "there is no rsync on %s", st.m).WithHint("install it: a release from 3.1 on does not start without, an older one never ends a full sync")
	} else if err != nil {
		return err
	}
	if err := in.portsFree(ctx, st, release); err != nil {
		return err
	}
	if err := in.dirFree(ctx, st); err != nil {
		return err
	}
	if err := in.diskEnough(ctx, st); err != nil {
		return err
	}
	return in.filesEnough(ctx, st)
}

// release is that of the target, or else of the program.
func (in createIn) release(ctx context.Context, v steps.View, st site) (Release, error) {
	tool, err := st.m.Look(ctx, in.Binary, "-v")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Release{}, st.refused(in, "there is no %s on %s", in.Binary, st.m).WithHint("install it, or give binary")
	case err != nil:
		return Release{}, err
	}
	if st.c.cfg.Release != "" {
		return ParseRelease(st.c.cfg.Release)
	}
	r, err := ParseRelease(tool.Version)
	if err != nil {
		return r, st.refused(in, "%s -v does not tell its release", in.Binary).WithHint("set release in the target")
	}
	return r, nil
}

// portsFree refuses ports that somebody else listens on. The rsync daemon of a former run in this directory will be adopted.
func (in createIn) portsFree(ctx context.Context, st site, r Release) error {
	for _, it := range append([]purpose{{st.port, "clients"}}, portsOf(r, st.port).all()...) {
		l, err := st.m.Listening(ctx, it.port)
		if err != nil {
			return err
		}
		if !l.Open || it.what == "rsync" && isRsyncDaemon(l.Process) && strings.Contains(l.Process, path.Clean(in.Dir)+"/") {
			continue
		}
		return st.refused(in, "port %d (%s) of %s is taken%s", it.port, it.what, st.m, byWhom(l)).
			WithHint("stop what holds it, or take another port: the server does not start without")
	}
	return nil
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

// dirFree refuses a directory that another process works in, or that holds data nobody asked to serve.
func (in createIn) dirFree(ctx context.Context, st site) error {
	if p, live := in.process(ctx, st.m); live {
		return st.refused(in, "process %d (%s) runs in that directory", p.PID, strings.Join(p.Argv, " "))
	}
	data, err := st.m.List(ctx, in.file("db"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case len(data) > 0 && !in.Reuse:
		return st.refused(in, "the directory holds data (db/%s)", data[0].Name).WithHint("reuse_data: true serves it; otherwise take another directory")
	}
	return nil
}

// What a slot takes that holds nothing, and how much of write-buffer-size its first write takes besides.
const (
	slotDisk       = 22 << 20
	slotFiles      = 27
	serverFiles    = 1000
	defaultBuffer  = 256 << 20
	bufferFraction = 1.1
)

func (in createIn) diskEnough(ctx context.Context, st site) error {
	d, err := st.m.Disk(ctx, in.Dir)
	if err != nil {
		return err
	}
	buffer := int64(defaultBuffer)
	if v, ok := in.Config["write-buffer-size"]; ok {
		if n, err := strconv.ParseInt(fmt.Sprint(v), 10, 64); err == nil {
			buffer = n
		}
	}
	need := int64(max(in.Slots, 1)) * (slotDisk + int64(bufferFraction*float64(buffer)))
	if d.Free < need {
		return st.refused(in, "%s has %d MB free, and %d slots with a write each take %d MB before any data", d.Path, d.Free>>20, max(in.Slots, 1), need>>20).
			WithHint("a smaller write-buffer-size takes less")
	}
	return nil
}

// filesEnough compares the limit of open files that processes may raise theirs to. A machine that tells none is not Linux.
func (in createIn) filesEnough(ctx context.Context, st site) error {
	b, err := st.m.ReadFile(ctx, "/proc/self/limits", 64<<10)
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		return nil
	}
	for line := range strings.Lines(string(b)) {
		rest, ok := strings.CutPrefix(line, "Max open files")
		f := strings.Fields(rest)
		if !ok || len(f) < 2 {
			continue
		}
		most, err := strconv.ParseInt(f[1], 10, 64)
		if need := int64(serverFiles + slotFiles*in.Slots); err == nil && most < need {
			return st.refused(in, "processes there may open %d files at most, and %d slots take %d", most, in.Slots, need).
				WithHint("raise the hard limit (ulimit -Hn, limits.conf)")
		}
	}
	return nil
}

func planCreate(ctx context.Context, v *steps.View, in createIn) (steps.Change, error) {
	port := in.Port
	if v != nil {
		st, err := in.site(ctx, *v)
		if err != nil {
			return steps.Change{}, err
		}
		_ = st.c.Close()
		port = st.port
	}
	_, shown, err := in.conf(port)
	if err != nil {
		if v == nil { // not all known yet
			return steps.Change{}, nil
		}
		return steps.Change{}, err
	}
	if port == 0 { // the target's, whose address is not asked for offline
		shown[0] = "port : the target's"
	}
	where := string(in.Host)
	write := steps.Line{Target: where, Command: "write " + in.file(confFile), To: strings.Join(shown, "; ")}
	if v == nil {
		write.Body = strings.Join(shown, "\n")
	}
	return steps.Change{Lines: []steps.Line{
		{Target: where, Command: "mkdir -p " + path.Clean(in.Dir)},
		write,
		{Target: where, Command: redis.Line(in.argv())},
	}}, nil
}

func probeCreate(ctx context.Context, v steps.View, in createIn) (steps.State, createOut, error) {
	st, err := in.site(ctx, v)
	if err != nil {
		return steps.Unclear, createOut{}, err
	}
	defer func() { _ = st.c.Close() }()
	i, who, err := st.knock(ctx, in)
	switch who {
	case cannotSay:
		return steps.Unclear, createOut{}, err
	case ours:
		return steps.Done, createOut{Addr: st.addr, PID: i.PID}, nil
	}
	if _, live := in.process(ctx, st.m); live {
		return steps.Partial, createOut{}, nil // it opens its slots
	}
	return steps.Untouched, createOut{}, nil
}

func applyCreate(ctx context.Context, s steps.Session, in createIn) (createOut, error) {
	st, err := in.site(ctx, s.View)
	if err != nil {
		return createOut{}, err
	}
	defer func() { _ = st.c.Close() }()
	up, err := st.running(ctx, in)
	if err != nil {
		return createOut{}, err
	}
	if !up {
		if err := in.start(ctx, s, st); err != nil {
			return createOut{}, err
		}
	}
	i, err := in.await(ctx, s.View, st)
	return createOut{Addr: st.addr, PID: i.PID}, err
}

// start writes the configuration and starts the server on it, unless a former attempt has.
func (in createIn) start(ctx context.Context, s steps.Session, st site) error {
	if _, live := in.process(ctx, st.m); live {
		return nil
	}
	m, err := machineSession(ctx, s, in.Host)
	if err != nil {
		return err
	}
	lines, _, err := in.conf(st.port)
	if err != nil {
		return err
	}
	dir := path.Clean(in.Dir)
	if err := m.Mkdir(ctx, dir, 0o750); err != nil {
		return err
	}
	if err := m.WriteFile(ctx, in.file(confFile), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	_, err = m.Start(ctx, host.Spawn{Argv: in.argv(), Dir: dir, Output: in.file(outFile), Detach: host.DetachSetsid, PIDFile: in.file(pidFile)})
	if isKind(err, "start") {
		return fmt.Errorf("%w: %s", err, in.hide(in.lastWords(ctx, st.m)))
	}
	return err
}

// await waits until the server answers, or its process has ended.
func (in createIn) await(ctx context.Context, v steps.View, st site) (Info, error) {
	for start := v.Now(); ; {
		i, who, err := st.knock(ctx, in)
		if who == ours {
			return i, nil
		}
		if who == another || ctx.Err() != nil {
			return i, err
		}
		if _, live := in.process(ctx, st.m); !live && v.Now().Sub(start) > time.Second {
			return i, steps.Errorf("exit", "start %s at %s: it has ended: %s", in.Binary, st.addr, in.hide(in.lastWords(ctx, st.m))).
				WithHint("see %s and the folder log beside it", in.file(outFile))
		}
		if v.Now().Sub(start) > in.Timeout {
			return i, &steps.Error{Kind: "timeout", Unknown: true, // it may come up yet
				Err: fmt.Errorf("start %s at %s: it does not answer within %s: %s", in.Binary, st.addr, in.Timeout, in.hide(in.lastWords(ctx, st.m)))}
		}
		if err := v.Sleep(ctx, pollEvery); err != nil {
			return i, fmt.Errorf("start %s at %s: %w", in.Binary, st.addr, err)
		}
	}
}

// pollEvery is how often a server is asked whether it is up, or down.
const pollEvery = 50 * time.Millisecond

func (in createIn) lastWords(ctx context.Context, m host.Machine) string {
	b, err := m.ReadFile(ctx, in.file(outFile), 1<<20)
	if err != nil {
		return "what it said cannot be read"
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

// hide takes the secrets of the configuration out of a text of the server's.
func (in createIn) hide(text string) string {
	for name, v := range in.Config {
		if s, ok := v.(string); ok && redis.IsSecretSetting(name) && len(s) >= 4 {
			text = strings.ReplaceAll(text, s, "***")
		}
	}
	return text
}

func undoCreate(ctx context.Context, s steps.Session, in createIn, _ *createOut) error {
	m, err := machineSession(ctx, s, in.Host)
	if err != nil {
		return err
	}
	if p, live := in.process(ctx, m); live {
		if err := stopProcess(ctx, s.View, m, p); err != nil {
			return err
		}
	}
	if p, live := in.rsyncDaemon(ctx, m); live {
		return stopProcess(ctx, s.View, m, p)
	}
	return nil
}

package simulate

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"path"
	"slices"
	"strconv"
	"strings"

	"runbook/internal/simulate/host"
	"runbook/internal/simulate/redis"
)

// program is a simulated redis as a process of a host.
type program struct {
	w   *World
	s   *system
	pid int
}

func (p *program) server() *redis.Server {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return p.s.server
}

// Alive also looks at the pid: the instance may have been started again, as another process.
func (p *program) Alive() bool {
	s := p.server()
	return s != nil && s.Alive() && s.PID() == p.pid
}

func (p *program) Signal(sig string) {
	switch sig {
	case "HUP", "USR1", "USR2", "CONT":
	default:
		p.server().Terminate(sig)
	}
}

func (p *program) Listens(port int) bool { return hasPort(p.s, port) }

func hasPort(s *system, port int) bool {
	for _, a := range []string{s.declared, s.actual} {
		if _, n, err := net.SplitHostPort(a); err == nil && n == strconv.Itoa(port) {
			return true
		}
	}
	return false
}

func (w *World) hostOf(s *system) string {
	if s.spec.Host != "" {
		return s.spec.Host
	}
	return w.firstHost().Name()
}

// adopt shows a server of the beginning as a process: on its host, or on every one where none is named, since all of them
// are then names of one machine.
func (w *World) adopt(s *system, pid int) {
	_, port, _ := net.SplitHostPort(w.shown(s))
	argv := []string{"redis-server", "127.0.0.1:" + port}
	for name, h := range w.hosts {
		if s.spec.Host == "" || s.spec.Host == name {
			h.Adopt(argv, pid, &program{w: w, s: s, pid: pid})
		}
	}
}

// launch is what a host does with a command that it is asked to start: `redis-server [FILE] [--parameter value …]` brings
// up the instance of this world that has the port.
func (w *World) launch(h *host.Host, pid int, argv []string, dir string, _ []string) (host.Program, bool, error) {
	if path.Base(argv[0]) != "redis-server" {
		return nil, false, nil
	}
	config, file, err := commandLine(h, argv[1:], dir)
	if err != nil {
		return nil, true, err
	}
	port := config["port"]
	if port == "" {
		port = "6379"
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return nil, true, fmt.Errorf("port %q: %w", port, err)
	}
	if by, busy := h.Listening(n); busy {
		return nil, true, fmt.Errorf("Warning: Could not create server TCP listening socket *:%d: bind: Address already in use (by %s)", n, by)
	}
	var s *system
	for _, name := range slices.Sorted(maps.Keys(w.systems)) {
		if c := w.systems[name]; hasPort(c, n) && (c.spec.Host == "" || c.spec.Host == h.Name()) {
			s = c
		}
	}
	if s == nil {
		return nil, true, fmt.Errorf("no system of this sandbox has port %d; declare one with absent: true and this address", n)
	}
	delete(config, "port")
	delete(config, "bind")
	w.mu.Lock()
	server, data := s.server, s.dir
	s.dir = config["dir"]
	w.mu.Unlock()
	if server == nil {
		if err := w.startRedis(s, config, file, pid); err != nil {
			return nil, true, err
		}
		w.Server(s.name).SetFullSync(s.spec.FullSync)
	} else {
		keep := server.SavedAtExit() && (data == "" || data == config["dir"])
		if err := server.Relaunch(config, file, pid, keep); err != nil {
			return nil, true, err
		}
		if file != "" {
			server.OnRewrite(func(file string, config map[string]string) { w.rewrite(s, file, config) })
		}
	}
	if f := config["pidfile"]; f != "" && config["daemonize"] == "yes" {
		if err := h.WriteFile(f, []byte(strconv.Itoa(pid)+"\n"), 0o644); err != nil {
			return nil, true, err
		}
	}
	return &program{w: w, s: s, pid: pid}, true, nil
}

// commandLine reads what redis-server is started with.
func commandLine(h *host.Host, args []string, dir string) (config map[string]string, file string, err error) {
	config = map[string]string{}
	if len(args) > 0 && !strings.HasPrefix(args[0], "--") {
		if file = args[0]; !path.IsAbs(file) {
			file = path.Join("/", dir, file)
		}
		args = args[1:]
		b, _, err := h.ReadFile(file)
		if err != nil {
			return nil, "", fmt.Errorf("Fatal error, can't open config file '%s': %w", file, errors.Unwrap(err))
		}
		if config, err = redis.ParseFile(string(b)); err != nil {
			return nil, "", err
		}
	}
	var lines []string
	for _, a := range args {
		if name, ok := strings.CutPrefix(a, "--"); ok {
			lines = append(lines, name)
		} else if len(lines) > 0 {
			lines[len(lines)-1] += " " + strconv.Quote(a)
		}
	}
	more, err := redis.ParseFile(strings.Join(lines, "\n"))
	if err != nil {
		return nil, "", err
	}
	maps.Copy(config, more)
	return config, file, nil
}

// rewrite is CONFIG REWRITE: the file on the host now holds what the server was told.
func (w *World) rewrite(s *system, file string, config map[string]string) {
	var b strings.Builder
	_, port, _ := net.SplitHostPort(w.shown(s))
	config["port"] = port
	for _, k := range slices.Sorted(maps.Keys(config)) {
		v := config[k]
		if v == "" || strings.ContainsAny(v, " #") && !strings.Contains("save replicaof client-output-buffer-limit bind", k) {
			v = strconv.Quote(v)
		}
		fmt.Fprintf(&b, "%s %s\n", k, v)
	}
	for name, h := range w.hosts {
		if _, _, err := h.ReadFile(file); err == nil && (s.spec.Host == "" || s.spec.Host == name) {
			_ = h.WriteFile(file, []byte(b.String()), 0o644) // the path was just read: it is a file
		}
	}
}

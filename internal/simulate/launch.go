package simulate

import (
	"cmp"
	"fmt"
	"net"
	"path"
	"slices"
	"strconv"
	"strings"

	"runbook/internal/simulate/host"
	"runbook/internal/simulate/redis"
	"runbook/internal/simulate/twemproxy"
)

// program is a system of the world as a process of a host.
type program struct {
	w   *World
	s   *system
	pid int
}

// running gives what the system runs as, if it still is this process: it may have been started again, as another one.
func (p *program) running() running {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	if p.s.pid != p.pid {
		return nil
	}
	return p.s.run
}

func (p *program) Alive() bool {
	r := p.running()
	return r != nil && r.Alive()
}

func (p *program) Signal(sig string) {
	r := p.running()
	switch sig {
	case "HUP", "USR1", "USR2": // none of these programs ends by them
		return
	case "STOP", "CONT":
		if f, ok := r.(interface {
			Freeze()
			Thaw()
		}); ok && sig == "STOP" {
			f.Freeze()
		} else if ok {
			f.Thaw()
		}
		return
	}
	switch r := r.(type) {
	case *redis.Server:
		r.Terminate(sig)
	case *pikaServer:
		r.Stop()
	case *twemproxy.Server:
		r.Close()
	}
}

func (p *program) Listens(port int) bool {
	if p.s.hasPort(port, 0) {
		return true
	}
	if p.s.spec.Kind == "twemproxy" {
		return p.w.listensBeside(p.s, port)
	}
	if p.s.spec.Kind != "pika" {
		return false
	}
	return slices.ContainsFunc(pikaPorts(p.s.spec.Release), func(d int) bool { return p.s.hasPort(port, d) })
}

// hasPort says whether a port is the system's own, declared or real, or at that distance from it.
func (s *system) hasPort(port, distance int) bool {
	for _, a := range []string{s.declared, s.actual} {
		if _, n, err := net.SplitHostPort(a); err == nil && n == strconv.Itoa(port-distance) {
			return true
		}
	}
	return false
}

func (w *World) newHost(name string) *host.Host {
	s := w.spec.Systems[name]
	files := map[string]string{}
	for p, text := range s.Files {
		files[p] = w.withAddrs(text)
	}
	ports := map[int]string{}
	for text, process := range s.Ports {
		port, _ := strconv.Atoi(text) // checkHost
		ports[port] = process
	}
	return host.New(host.Options{
		Name: name, Clock: w.clock, Files: files, Ports: ports, Binaries: s.Binaries, Disks: s.Disks, Commands: w.spec.Commands, Launch: w.launch,
	})
}

func (w *World) checkHost(s *system) error {
	for text := range s.spec.Ports {
		if n, err := strconv.ParseUint(text, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("ports: %q is no port", text)
		}
	}
	return nil
}

// withAddrs puts addresses in the place of ${NAME} in a file.
func (w *World) withAddrs(text string) string {
	for name, s := range w.systems {
		text = strings.ReplaceAll(text, "${"+name+"}", w.shown(s))
	}
	return text
}

func (w *World) firstHost() *host.Host {
	if hosts := w.names("host"); len(hosts) > 0 {
		return w.hosts[hosts[0]]
	}
	return w.hosts[LocalHost]
}

// hostOf names the host that a system is started on.
func (w *World) hostOf(s *system) string {
	if hosts := w.names("host"); s.spec.Host == "" && len(hosts) > 0 {
		return hosts[0]
	}
	return cmp.Or(s.spec.Host, LocalHost)
}

// adopt shows a system of the beginning as a process: on its host, or on every one where none is named, since all of them
// are then names of one machine.
func (w *World) adopt(s *system, argv []string, pid int) {
	for _, h := range w.hostsOf(s) {
		h.Adopt(argv, pid, &program{w: w, s: s, pid: pid})
	}
}

func (w *World) hostsOf(s *system) []*host.Host {
	var all []*host.Host
	for name, h := range w.hosts {
		if s.spec.Host == "" || s.spec.Host == name {
			all = append(all, h)
		}
	}
	return all
}

// launch is what a host does with a command that it is asked to start: redis-server, pika and nutcracker bring up the
// instance of this world that has the port.
func (w *World) launch(h *host.Host, pid int, argv []string, dir string, _ []string) (host.Program, bool, error) {
	var start func(h *host.Host, pid int, args []string, dir string) (*system, error)
	switch path.Base(argv[0]) {
	case "redis-server":
		start = w.launchRedis
	case "pika":
		start = w.launchPika
	case "nutcracker":
		start = w.launchTwemproxy
	default:
		return nil, false, nil
	}
	s, err := start(h, pid, argv[1:], dir)
	if err != nil {
		return nil, true, err
	}
	return &program{w: w, s: s, pid: pid}, true, nil
}

// Run carries out a command of a program that this world knows, as a shell sees it; known is false for any other.
func (w *World) Run(h *host.Host, argv []string, dir string, env []string) (said string, code int, known bool) {
	switch path.Base(argv[0]) {
	case "redis-server", "pika":
		if _, err := h.Start(argv, dir, env); err != nil {
			return err.Error(), 1, true
		}
		return "", 0, true
	case "nutcracker":
		said, code = w.runTwemproxy(h, argv, dir, env)
		return said, code, true
	}
	return "", 0, false
}

// at finds the system of a kind that has a port on a host.
func (w *World) at(h *host.Host, kind string, port int) (*system, error) {
	for _, name := range w.names(kind) {
		if s := w.systems[name]; s.hasPort(port, 0) && (s.spec.Host == "" || s.spec.Host == h.Name()) {
			return s, nil
		}
	}
	return nil, fmt.Errorf("no system of this sandbox has port %d; declare one with absent: true and this address", port)
}

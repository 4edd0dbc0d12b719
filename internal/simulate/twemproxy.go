package simulate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"path"
	"slices"
	"strconv"
	"strings"

	"runbook/internal/simulate/host"
	"runbook/internal/simulate/twemproxy"
)

// nutcracker's own defaults.
const (
	nutcrackerFile    = "/etc/nutcracker/nutcracker.yml"
	nutcrackerPidfile = "/run/nutcracker/nutcracker.pid"
)

func (w *World) checkTwemproxy(s *system) error {
	spec := s.spec
	owners, err := w.serversOfSlots(spec)
	switch {
	case err != nil:
		return err
	case spec.Slots != nil && len(owners) != w.slotNum(s.name):
		return fmt.Errorf("slots: %d of %d have a server", len(owners), w.slotNum(s.name))
	case spec.Slots == nil && !spec.Absent:
		if file, h := s.nutcrackerFile(), w.spec.Systems[w.hostOf(s)]; h.Files[file] == "" {
			return fmt.Errorf("it needs slots, or the file %s on its host", file)
		}
	}
	return nil
}

func (w *World) serversOfSlots(spec System) (map[int]string, error) {
	return slotOwners(spec.Slots, cmp.Or(spec.SlotNum, slotNum), func(said any) (string, error) {
		name, _ := said.(string)
		if k := w.spec.Systems[name].Kind; k != "pika" && k != "redis" {
			return "", fmt.Errorf("%v is no pika and no redis of this world", said)
		}
		return name, nil
	})
}

func (s *system) nutcrackerFile() string { return cmp.Or(s.spec.File, nutcrackerFile) }

// Twemproxy gives a twemproxy by name, as it was started last; nil while it is absent or where there is none.
func (w *World) Twemproxy(name string) *twemproxy.Server { return as[*twemproxy.Server](w, name) }

func startTwemproxy(_ context.Context, w *World, s *system) error {
	h := w.hosts[w.hostOf(s)]
	file, pidfile := s.nutcrackerFile(), cmp.Or(s.spec.Pidfile, nutcrackerPidfile)
	if s.spec.Slots != nil {
		text, err := w.poolOfSlots(s)
		if err != nil {
			return err
		}
		for _, h := range w.hostsOf(s) {
			h.Place(file, text)
		}
	}
	a, err := twemproxy.ParseArguments([]string{"-d", "-c", file, "-p", pidfile})
	if err != nil {
		return err
	}
	pid := h.NextPID()
	if err := w.runNutcracker(s, h, a, pid); err != nil {
		return err
	}
	for _, h := range w.hostsOf(s) {
		h.Place(pidfile, strconv.Itoa(pid))
	}
	w.adopt(s, []string{"nutcracker", "-d", "-c", file, "-p", pidfile}, pid)
	return nil
}

// poolOfSlots writes the pool that sends every slot to the system that it belongs to.
func (w *World) poolOfSlots(s *system) (string, error) {
	owners, err := w.serversOfSlots(s.spec)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, `%s:
  listen: %s
  hash: crc32a
  hash_tag: "{}"
  distribution: modula
  auto_eject_hosts: false
  redis: true
  timeout: 5000
  servers:
`, cmp.Or(s.spec.Pool, "pool"), w.shown(s))
	for _, id := range slices.Sorted(maps.Keys(owners)) {
		fmt.Fprintf(&b, "   - %s:1 server%d\n", w.shown(w.systems[owners[id]]), id+1)
	}
	return b.String(), nil
}

// runNutcracker starts the proxy. Whatever port its file and its command line name, the one that is a system's is
// opened where that system listens, any other at a free one.
func (w *World) runNutcracker(s *system, h *host.Host, a twemproxy.Arguments, pid int) error {
	text, _, err := h.ReadFile(a.Config)
	if err != nil {
		return fmt.Errorf("nutcracker: configuration: Failed to open '%s': %w", a.Config, errors.Unwrap(err))
	}
	server, err := twemproxy.Start(twemproxy.Options{
		Config: string(text), StatsAddr: a.StatsAddr, Clock: w.clock, Dial: w.Dial,
		Listen: func(addr string) (net.Listener, error) { return w.listenAt(s, addr) },
	})
	if err != nil {
		return err
	}
	w.began(s, server, pid)
	return nil
}

// listenAt opens a port that a twemproxy names.
func (w *World) listenAt(s *system, addr string) (net.Listener, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if n, err := strconv.Atoi(port); err == nil && s.hasPort(n, 0) {
		return net.Listen("tcp", s.actual)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		w.mu.Lock()
		s.more["127.0.0.1:"+port], s.more[l.Addr().String()] = l.Addr().String(), l.Addr().String()
		w.mu.Unlock()
	}
	return l, err
}

// listensBeside says whether a twemproxy has another port open than that of its clients.
func (w *World) listensBeside(s *system, port int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return s.more["127.0.0.1:"+strconv.Itoa(port)] != ""
}

// launchTwemproxy is `nutcracker -c FILE …`. The file says which system it is.
func (w *World) launchTwemproxy(h *host.Host, pid int, args []string, dir string) (*system, error) {
	a, err := nutcrackerArguments(args, dir)
	if err != nil {
		return nil, err
	}
	text, _, err := h.ReadFile(a.Config)
	if err != nil {
		return nil, fmt.Errorf("nutcracker: configuration: Failed to open '%s': %w", a.Config, errors.Unwrap(err))
	}
	pools, err := twemproxy.Parse(string(text))
	if err != nil {
		return nil, fmt.Errorf("nutcracker: configuration syntax is invalid: %w", err)
	}
	var s *system
	for _, p := range pools {
		_, port, _ := net.SplitHostPort(p.Listen)
		n, _ := strconv.Atoi(port)
		if by, busy := h.Listening(n); busy {
			return nil, fmt.Errorf("nutcracker: bind to proxy addr '%s' failed: Address already in use (by %s)", p.Listen, by)
		}
		if found, err := w.at(h, "twemproxy", n); err == nil && s == nil {
			s = found
		}
	}
	if s == nil {
		return nil, fmt.Errorf("no twemproxy of this sandbox listens at %s; declare one with absent: true and this address", pools[0].Listen)
	}
	if err := w.runNutcracker(s, h, a, pid); err != nil {
		return nil, err
	}
	return s, h.WriteFile(a.Pidfile, []byte(strconv.Itoa(pid)), 0o644)
}

func nutcrackerArguments(args []string, dir string) (twemproxy.Arguments, error) {
	a, err := twemproxy.ParseArguments(args)
	for _, p := range []*string{&a.Config, &a.Pidfile} {
		if !path.IsAbs(*p) {
			*p = path.Join("/", dir, *p)
		}
	}
	return a, err
}

// runTwemproxy is nutcracker as a shell sees it. With -d it ends well before it has bound its ports: that a start failed
// is told by its log alone.
func (w *World) runTwemproxy(h *host.Host, argv []string, dir string, env []string) (said string, code int) {
	a, err := nutcrackerArguments(argv[1:], dir)
	if err != nil {
		return err.Error() + "\n", 1
	}
	text, _, err := h.ReadFile(a.Config)
	if err != nil {
		return fmt.Sprintf("nutcracker: configuration: Failed to open '%s': No such file or directory\n", a.Config), 1
	}
	if said, code = twemproxy.Test(a.Config, string(text)); a.Test || code != 0 {
		return said, code
	}
	if _, err := h.Start(argv, dir, env); err != nil && !a.Daemonize {
		return err.Error() + "\n", 1
	}
	return "", 0
}

package simulate

import (
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
	"runbook/internal/simulate/redis"
	"runbook/internal/simulate/resp"
)

func (w *World) checkRedis(s *system) error { return w.checkReplica(s) }

// Server gives a redis by name; nil while it is absent or where there is none.
func (w *World) Server(name string) *redis.Server { return as[*redis.Server](w, name) }

// Network is where links between servers of kind redis are cut.
func (w *World) Network() *redis.Network { return w.network }

func startRedis(_ context.Context, w *World, s *system) error {
	pid := w.hosts[w.hostOf(s)].NextPID()
	if err := w.runRedis(s, w.redisConfig(s), "", pid); err != nil {
		return err
	}
	_, port, _ := net.SplitHostPort(w.shown(s))
	w.adopt(s, []string{"redis-server", "127.0.0.1:" + port}, pid)
	return nil
}

// redisConfig is what a redis of the beginning is configured with.
func (w *World) redisConfig(s *system) map[string]string {
	c := maps.Clone(s.spec.Config)
	if c == nil {
		c = map[string]string{}
	}
	if s.spec.Password != "" {
		c["requirepass"] = s.spec.Password
	}
	if s.spec.Maxmemory != "" {
		c["maxmemory"] = s.spec.Maxmemory
	}
	if m := w.systems[s.spec.ReplicaOf]; m != nil {
		host, port, _ := net.SplitHostPort(w.shown(m))
		c["replicaof"] = host + " " + port
		if _, ok := c["masterauth"]; !ok && m.spec.Password != "" {
			c["masterauth"] = m.spec.Password
		}
	}
	return c
}

func (w *World) runRedis(s *system, config map[string]string, file string, pid int) error {
	server, err := redis.New(redis.Options{
		Name: s.name, Release: s.spec.Release, Addr: s.actual, Announce: w.shown(s), Aliases: aliases(s), Config: config, ConfigFile: file,
		Lag: s.spec.Lag, Clock: w.clock, Network: w.network, PID: pid,
	})
	if err != nil {
		return err
	}
	names := func(i int) string { return fmt.Sprintf("key:%06d", i) }
	fill(server.Do, names, s.spec.Keys, w.opts.Seed)
	if file != "" {
		server.OnRewrite(func(file string, config map[string]string) { w.rewrite(s, file, config) })
	}
	w.began(s, server, pid)
	return nil
}

// fill gives a server n keys of all types; one in ten expires within hours.
func fill(do func(args ...string) resp.Value, name func(i int) string, n int, seed uint64) {
	for i := range n {
		k, v := name(i), fmt.Sprintf("value %d of %d", i, seed)
		switch i % 5 {
		case 0, 1:
			do("SET", k, v)
		case 2:
			do("HMSET", k, "name", v, "n", strconv.Itoa(i))
		case 3:
			do("RPUSH", k, v, "b", "c")
		case 4:
			if i%2 == 0 {
				do("SADD", k, v, "b", "c")
			} else {
				do("ZADD", k, strconv.Itoa(i), v, "1.5", "b")
			}
		}
		if i%10 == 0 {
			do("EXPIRE", k, strconv.Itoa(7200+i%3600))
		}
	}
}

// settleRedis waits until a replica of the beginning follows its master, and only then gives syncs the time they take.
func settleRedis(ctx context.Context, w *World, s *system) error {
	server := w.Server(s.name)
	if m := w.systems[s.spec.ReplicaOf]; m != nil && m.run != nil {
		err := w.until(ctx, func() bool { return strings.Contains(server.Do("INFO", "replication").Str, "master_link_status:up") })
		if err != nil {
			return fmt.Errorf("follow %s: %w", m.name, err)
		}
	}
	server.SetFullSync(s.spec.FullSync)
	return nil
}

// launchRedis is `redis-server [FILE] [--parameter value …]`.
func (w *World) launchRedis(h *host.Host, pid int, args []string, dir string) (*system, error) {
	config, file, err := commandLine(h, args, dir)
	if err != nil {
		return nil, err
	}
	port := config["port"]
	if port == "" {
		port = "6379"
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return nil, fmt.Errorf("port %q: %w", port, err)
	}
	if by, busy := h.Listening(n); busy {
		return nil, fmt.Errorf("Warning: Could not create server TCP listening socket *:%d: bind: Address already in use (by %s)", n, by)
	}
	s, err := w.at(h, "redis", n)
	if err != nil {
		return nil, err
	}
	delete(config, "port")
	delete(config, "bind")
	server := w.Server(s.name)
	w.mu.Lock()
	data := s.dir
	s.dir = config["dir"]
	w.mu.Unlock()
	if server == nil {
		if err := w.runRedis(s, config, file, pid); err != nil {
			return nil, err
		}
		w.Server(s.name).SetFullSync(s.spec.FullSync)
	} else {
		keep := server.SavedAtExit() && (data == "" || data == config["dir"])
		if err := server.Relaunch(config, file, pid, keep); err != nil {
			return nil, err
		}
		if file != "" {
			server.OnRewrite(func(file string, config map[string]string) { w.rewrite(s, file, config) })
		}
		w.began(s, server, pid)
	}
	if f := config["pidfile"]; f != "" && config["daemonize"] == "yes" {
		if err := h.WriteFile(f, []byte(strconv.Itoa(pid)+"\n"), 0o644); err != nil {
			return nil, err
		}
	}
	return s, nil
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

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
	"sync"
	"sync/atomic"

	"runbook/internal/simulate/host"
	"runbook/internal/simulate/pika"
)

// rsyncDistance is how far above its own port a Pika has that of its rsync.
const rsyncDistance = 1000

func (w *World) checkPika(s *system) error {
	spec := s.spec
	if spec.Absent && (spec.Slots != nil || spec.ReplicaOf != "" || spec.Keys > 0) {
		return errors.New("what is absent has no slots, no keys and no master; the runbook gives it those")
	}
	if spec.Slots != nil {
		if spec.Mode == "classic" {
			return errors.New("mode classic has no slots")
		}
		if _, err := parseSlots(spec.Slots, w.slotNum(s.name)); err != nil {
			return fmt.Errorf("slots: %w", err)
		}
	}
	if spec.Keys > 0 && spec.Slots == nil && sharding(spec) {
		return errors.New("keys lie in slots, and it has none")
	}
	if err := w.checkDown(s); err != nil {
		return err
	}
	m := w.spec.Systems[spec.ReplicaOf]
	if err := w.checkReplica(s); err != nil || spec.ReplicaOf == "" || !sharding(spec) {
		return err
	}
	if spec.Slots == nil {
		return fmt.Errorf("replica_of %s is about slots, and it has none", spec.ReplicaOf)
	}
	own, _ := parseSlots(spec.Slots, w.slotNum(s.name))
	theirs, err := parseSlots(m.Slots, w.slotNum(spec.ReplicaOf))
	if missing := without(own, theirs); err == nil && len(missing) > 0 {
		return fmt.Errorf("replica_of %s, which does not have slots %s", spec.ReplicaOf, ranges(missing))
	}
	return nil
}

func sharding(s System) bool { return s.Mode != "classic" && !strings.HasPrefix(s.Release, "2.") }

func without(all, some []int) []int {
	return slices.DeleteFunc(slices.Clone(all), func(id int) bool { return slices.Contains(some, id) })
}

// Pika gives a pika by name; nil while it is absent or where there is none.
func (w *World) Pika(name string) *pika.Server {
	if s := as[*pikaServer](w, name); s != nil {
		return s.Server
	}
	return nil
}

// PikaNetwork is where links between servers of kind pika are cut.
func (w *World) PikaNetwork() *pika.Network { return w.pikas }

// pikaServer is a Pika and the port of its rsync.
type pikaServer struct {
	*pika.Server
	port   *rsyncPort
	daemon *rsyncDaemon // nil before its first start
}

func (p *pikaServer) Close() {
	p.port.close()
	p.Server.Close()
}

func startPika(_ context.Context, w *World, s *system) error {
	h := w.hosts[w.hostOf(s)]
	pid := h.NextPID()
	dir := path.Join("/data", s.name)
	config := map[string]string{"db-path": dir + "/db/", "db-sync-path": dir + "/dbsync/", "pidfile": dir + "/pika.pid"}
	maps.Copy(config, s.spec.Config)
	if s.spec.Password != "" {
		config["requirepass"] = s.spec.Password
	}
	if m := w.systems[s.spec.ReplicaOf]; m != nil {
		if m.spec.Password != "" && config["masterauth"] == "" {
			config["masterauth"] = m.spec.Password
		}
		if !sharding(s.spec) {
			config["slaveof"] = w.shown(m)
		}
	}
	slots := ""
	if s.spec.Slots != nil {
		slots = fmt.Sprint(s.spec.Slots)
	}
	if err := w.runPika(s, h, config, slots, pid); err != nil {
		return err
	}
	w.fillPika(s)
	_, config["port"], _ = net.SplitHostPort(w.shown(s))
	var conf strings.Builder
	for _, k := range slices.Sorted(maps.Keys(config)) {
		fmt.Fprintf(&conf, "%s : %s\n", k, config[k])
	}
	file := dir + "/pika.conf"
	for _, h := range w.hostsOf(s) {
		h.Place(file, conf.String())
		h.Place(config["pidfile"], strconv.Itoa(pid)+"\n")
		h.Place(path.Join(config["db-path"], "meta"), "")
	}
	w.adopt(s, []string{"pika", "-c", file}, pid)
	w.adoptRsync(s, h, config["db-sync-path"])
	return nil
}

// runPika starts a server in a folder without data.
func (w *World) runPika(s *system, h *host.Host, config map[string]string, slots string, pid int) error {
	mode := s.spec.Mode
	if m := config["instance-mode"]; m != "" {
		mode = m
	}
	num := w.slotNum(s.name)
	if n, err := strconv.Atoi(config["default-slot-num"]); err == nil {
		num = n
	}
	_, _, rsync := h.LookPath("rsync")
	server, err := pika.Start(pika.Options{
		Name: s.name, Release: s.spec.Release, Mode: mode, Addr: s.actual, Announce: w.shown(s), Aliases: aliases(s),
		SlotNum: num, Slots: slots, Config: config, NoRsync: !rsync, Clock: w.clock, Network: w.pikas, PID: pid,
	})
	if err != nil {
		return err
	}
	run := &pikaServer{Server: server}
	if run.port, err = listenRsync(server, s.actual); err != nil {
		server.Close()
		return err
	}
	w.mu.Lock()
	s.dir = config["db-path"]
	w.mu.Unlock()
	w.began(s, run, pid)
	return nil
}

// fillPika gives a server keys in the slots that it has.
func (w *World) fillPika(s *system) {
	server := w.Pika(s.name)
	if !sharding(s.spec) {
		fill(server.Do, func(i int) string { return fmt.Sprintf("key:%06d", i) }, s.spec.Keys, w.opts.Seed)
		return
	}
	num, next := w.slotNum(s.name), 0
	fill(server.Do, func(int) string {
		for {
			key := fmt.Sprintf("key:%06d", next)
			if next++; server.HasSlot(slotOf(key, num)) {
				return key
			}
		}
	}, s.spec.Keys, w.opts.Seed)
}

// settlePika has the slots of a replica follow its master's and waits until they do, and only then gives syncs the
// time they take.
func settlePika(ctx context.Context, w *World, s *system) error {
	server := w.Pika(s.name)
	if m := w.Pika(s.spec.ReplicaOf); m != nil {
		holds := func() bool {
			return strings.Contains(server.Do("INFO", "replication").Str, "master_link_status:up") &&
				len(server.Do("KEYS", "*").Items) == len(m.Do("KEYS", "*").Items)
		}
		if sharding(s.spec) {
			slots, err := parseSlots(s.spec.Slots, w.slotNum(s.name))
			if err != nil {
				return err
			}
			ip, port, _ := net.SplitHostPort(m.Announced())
			if err := server.Do("PKCLUSTER", "SLOTSSLAVEOF", ip, port, ranges(slots)).Error(); err != nil {
				return fmt.Errorf("follow %s: %w", s.spec.ReplicaOf, err)
			}
			holds = func() bool { return inStep(copies(m), copies(server), slots, server.Announced()) }
		}
		if err := w.until(ctx, holds); err != nil {
			return fmt.Errorf("follow %s: %w", s.spec.ReplicaOf, err)
		}
	}
	w.paceOfPika(s)
	return nil
}

// paceOfPika gives replication the time that it takes in this world.
func (w *World) paceOfPika(s *system) {
	server := w.Pika(s.name)
	if s.spec.FullSync != 0 {
		server.SetFullSync(s.spec.FullSync)
	}
	server.SetLag(s.spec.Lag)
}

// inStep says whether a replica has all that its master has, in all of these slots.
func inStep(master, replica map[int]slotCopy, slots []int, addr string) bool {
	for _, id := range slots {
		if replica[id].state != "kConnected" || master[id].lag[addr] != "0" || master[id].offset != replica[id].offset {
			return false
		}
	}
	return true
}

// slotCopy is one slot as one Pika has it.
type slotCopy struct {
	offset string
	master string            // whom it follows, "" for nobody
	state  string            // of its replication, where it follows somebody
	lag    map[string]string // of its replicas that get the binlog, by address
}

// copies asks a Pika for all of its slots, past every fault.
func copies(s *pika.Server) map[int]slotCopy {
	all := map[int]slotCopy{}
	var id int
	var replica string
	for line := range strings.Lines(s.Do("PKCLUSTER", "INFO", "SLOT").Str) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		c := all[id]
		switch {
		case strings.HasPrefix(name, "(db0:"):
			number, rest, _ := strings.Cut(strings.TrimPrefix(name, "(db0:"), ")")
			id, _ = strconv.Atoi(number)
			offset, _, _ := strings.Cut(rest, ",")
			c = slotCopy{offset: offset, lag: map[string]string{}}
		case strings.HasPrefix(name, "slave["):
			replica = value
			continue
		case name == "lag":
			c.lag[replica] = value
		case name == "master":
			c.master = value
		case name == "slave status":
			c.state = value
		default:
			continue
		}
		all[id] = c
	}
	return all
}

// hasRsync says whether a release has its rsync daemon run from the start, a thousand above its port.
func hasRsync(release string) bool { return !strings.HasPrefix(release, "2.") }

// rsyncPort is where the rsync daemon of a Pika is looked for from outside: at a distance of its port, whatever port the
// simulator has it on. Like the real daemon it outlives the server.
type rsyncPort struct {
	listener net.Listener
	wg       sync.WaitGroup
}

func listenRsync(server *pika.Server, addr string) (*rsyncPort, error) {
	if !hasRsync(server.Release()) || server.RsyncAddr() == "" {
		return nil, nil //nolint:nilnil // there is none
	}
	l, err := net.Listen("tcp", away(addr, rsyncDistance))
	if err != nil {
		return nil, err
	}
	p := &rsyncPort{listener: l}
	p.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if server.RsyncAddr() != "" {
				_, _ = c.Write([]byte("@RSYNCD: 31.0\n"))
			}
			_ = c.Close()
		}
	})
	return p, nil
}

func (p *rsyncPort) close() {
	if p != nil {
		_ = p.listener.Close()
		p.wg.Wait()
	}
}

// pikaPorts are those that a running Pika has besides its own and rsync's, as distances.
func pikaPorts(release string) []int {
	if hasRsync(release) {
		return []int{2000}
	}
	return []int{1000, 1100, 2000}
}

// launchPika is `pika -c FILE`.
func (w *World) launchPika(h *host.Host, pid int, args []string, dir string) (*system, error) {
	config, err := pikaConfig(h, args, dir)
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(config["port"])
	if err != nil {
		return nil, fmt.Errorf("port %q: %w", config["port"], err)
	}
	s, err := w.at(h, "pika", n)
	if err != nil {
		return nil, err
	}
	if err := w.pikaPortsFree(h, s, n, config["db-sync-path"]); err != nil {
		return nil, err
	}
	delete(config, "port")
	server := as[*pikaServer](w, s.name)
	w.mu.Lock()
	data := s.dir
	w.mu.Unlock()
	if server != nil && data == config["db-path"] {
		if err := server.Relaunch(config); err != nil {
			return nil, err
		}
		w.began(s, server, pid)
	} else {
		if server != nil {
			server.Close() // nothing of its data lies in the other folder
		}
		if err := w.runPika(s, h, config, "", pid); err != nil {
			return nil, err
		}
		w.paceOfPika(s)
	}
	if p := config["db-path"]; p != "" {
		h.Place(path.Join("/", dir, p, "meta"), "")
	}
	if f := config["pidfile"]; f != "" && config["daemonize"] == "yes" {
		h.Place(path.Join("/", dir, f), strconv.Itoa(pid)+"\n")
	}
	w.adoptRsync(s, h, config["db-sync-path"])
	return s, nil
}

// pikaConfig reads the file that pika is started with: name : value, and # at the beginning of a line.
func pikaConfig(h *host.Host, args []string, dir string) (map[string]string, error) {
	if len(args) != 2 || args[0] != "-c" {
		return nil, fmt.Errorf("pika %s: a sandbox knows pika -c FILE", strings.Join(args, " "))
	}
	file := args[1]
	if !path.IsAbs(file) {
		file = path.Join("/", dir, file)
	}
	b, _, err := h.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("Error: Load conf file %s: %w", file, err)
	}
	config := map[string]string{}
	for line := range strings.Lines(string(b)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), ":")
		if ok && !strings.HasPrefix(name, "#") {
			config[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	return config, nil
}

// pikaPortsFree refuses what the program aborts for, in its words. An rsync daemon that a former run left in the same
// folder is adopted.
func (w *World) pikaPortsFree(h *host.Host, s *system, port int, syncDir string) error {
	if _, _, busy := h.Holder(port); busy {
		return fmt.Errorf("Start Dispatch Error: 1: bind port %d conflict, Listen on this port to handle the connected redis client", port)
	}
	if hasRsync(s.spec.Release) {
		_, argv, busy := h.Holder(port + rsyncDistance)
		_, _, installed := h.LookPath("rsync")
		if !installed || busy && !slices.ContainsFunc(argv, func(a string) bool { return strings.Contains(a, path.Clean(syncDir)+"/") }) {
			return fmt.Errorf("Start Rsync Error: bind port %d failed, Listen on this port to receive Master FullSync Data", port+rsyncDistance)
		}
	}
	for _, d := range pikaPorts(s.spec.Release) {
		if _, _, busy := h.Holder(port + d); busy {
			return fmt.Errorf("Start Pika Repl Server Thread Error: 1: bind port %d conflict", port+d)
		}
	}
	return nil
}

// rsyncDaemon is the rsync of a Pika as a process of its own: it outlives the server, and the next start adopts it.
type rsyncDaemon struct {
	s      *system
	server *pika.Server
	killed atomic.Bool
}

func (w *World) adoptRsync(s *system, h *host.Host, syncDir string) {
	server := as[*pikaServer](w, s.name)
	if !hasRsync(s.spec.Release) || server.daemon != nil && server.daemon.Alive() {
		return
	}
	_, _, installed := h.LookPath("rsync")
	server.SetNoRsync(!installed)
	if !installed {
		return
	}
	dir := path.Join("/", syncDir, "rsync")
	pid := h.NextPID()
	server.daemon = &rsyncDaemon{s: s, server: server.Server}
	for _, h := range w.hostsOf(s) {
		h.Place(dir+"/slash_rsync.pid", strconv.Itoa(pid)+"\n")
		h.Adopt([]string{"rsync", "--daemon", "--config=" + dir + "/slash_rsync.conf"}, pid, server.daemon)
	}
}

func (d *rsyncDaemon) Alive() bool { return !d.killed.Load() && d.server.RsyncAddr() != "" }

func (d *rsyncDaemon) Listens(port int) bool { return d.s.hasPort(port, rsyncDistance) }

func (d *rsyncDaemon) Signal(sig string) {
	if sig != "HUP" && sig != "STOP" && sig != "CONT" && !d.killed.Swap(true) {
		d.server.SetNoRsync(true)
	}
}

package pika

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"runbook/internal/simulate/fault"
	simulate "runbook/internal/simulate/pika"
	"runbook/schema"
	"runbook/steps"
	"runbook/steps/conformance"
	"runbook/steps/host"
)

const password = "correct-horse-battery"

// server is one server of a world, real or simulated.
type server struct {
	addr string
	pass string
	dir  string
	sim  *simulate.Server
}

func (s *server) target() conformance.Target {
	cfg := map[string]any{"addr": s.addr}
	if s.pass != "" {
		cfg["password"] = s.pass
	}
	return conformance.Target{Kind: Target().Define(), Config: cfg}
}

func (s *server) client(t *testing.T) *Client {
	t.Helper()
	c := Open(Config{Addr: schema.Addr(s.addr), Password: schema.NewSecret(s.pass), Timeout: time.Minute}, steps.ReadWrite)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// do fails the test where the server answers an error.
func (s *server) do(t *testing.T, args ...string) any {
	t.Helper()
	r, err := s.client(t).Do(context.Background(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return r.Value()
}

func (s *server) slot(t *testing.T, id int) Slot {
	t.Helper()
	slots, err := s.client(t).Slots(context.Background(), schema.Slots{id})
	if err != nil {
		t.Fatal(err)
	}
	return slots[0]
}

// options of a server, by the names of pika.conf where they have one.
type options struct {
	mode, slots, pass, auth string
	release                 string  // of simulated ones; real ones are what PIKA_BIN is
	pace                    float64 // of simulated ones: 0.1 if 0
}

// backend starts servers.
type backend struct {
	name  string
	start func(t *testing.T, o options) *server
}

// simulated starts servers that find each other.
func simulated() backend {
	network := simulate.NewNetwork()
	return backend{name: "simulated", start: func(t *testing.T, o options) *server {
		t.Helper()
		if o.pace == 0 {
			o.pace = 0.1
		}
		s, err := simulate.Start(simulate.Options{
			Name: "p", Network: network, Mode: o.mode, Slots: o.slots, Release: o.release, SlotNum: slotNumber, Password: o.pass, MasterAuth: o.auth, Pace: o.pace, Ack: 5 * time.Millisecond, FullSync: 20 * time.Millisecond,
			Config: map[string]string{"userpass": o.pass},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return &server{addr: s.Addr(), pass: o.pass, sim: s}
	}}
}

// slotNumber is default-slot-num of every world.
const slotNumber = 16

// realBinary names a real pika, of 3.4; empty: there is none.
func realBinary() string { return os.Getenv("PIKA_BIN") }

// realOnes starts the program that PIKA_BIN names.
func realOnes() backend {
	return backend{name: "pika", start: func(t *testing.T, o options) *server {
		t.Helper()
		dir := t.TempDir()
		port := freePort(t)
		s := &server{addr: fmt.Sprintf("127.0.0.1:%d", port), pass: o.pass, dir: dir}
		in := createIn{Dir: dir, Config: map[string]any{"network-interface": "lo", "instance-mode": "classic", "write-buffer-size": 1 << 20, "requirepass": o.pass, "userpass": o.pass, "masterauth": o.auth, "thread-num": 1}}
		if o.mode != Classic {
			in.Config["instance-mode"], in.Config["default-slot-num"] = Sharding, slotNumber
		}
		lines, _, err := in.conf(port)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(in.file(confFile), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(realBinary(), "-c", in.file(confFile))
		cmd.Dir = dir
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			endDaemon(in)
		})
		c := s.client(t)
		eventually(t, s.addr+" answers", func() bool { _, err := c.Do(context.Background(), "PING"); return err == nil })
		if o.slots != "" {
			s.do(t, "PKCLUSTER", "ADDSLOTS", o.slots)
		}
		return s
	}}
}

// endDaemon ends the rsync daemon that a server leaves.
func endDaemon(in createIn) {
	m := host.Local()
	if p, live := in.rsyncDaemon(context.Background(), m); live {
		_ = m.Signal(context.Background(), p, "TERM", false)
	}
}

// freePort finds a port whose neighbours that Pika needs are free too.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		_ = l.Close()
		if port+10001 > 65535 || !free(port+1000) || !free(port+2000) {
			continue
		}
		return port
	}
	t.Fatal("no port with free neighbours")
	return 0
}

func free(port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort("", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	_ = l.Close()
	return true
}

// eventually asks until it is so; servers offer nothing to wait on.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for tick := time.NewTicker(5 * time.Millisecond); ; <-tick.C {
		if is() {
			tick.Stop()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// follow has slots of b follow those of a, and waits until they are in sync.
func follow(t *testing.T, b, a *server, group string, more ...string) {
	t.Helper()
	h, p, _ := net.SplitHostPort(a.addr)
	b.do(t, append([]string{"PKCLUSTER", "SLOTSSLAVEOF", h, p, group}, more...)...)
	inSync(t, b, a)
}

func inSync(t *testing.T, b, a *server) {
	t.Helper()
	cb, ca := b.client(t), a.client(t)
	eventually(t, b.addr+" follows "+a.addr, func() bool {
		mine, err := cb.HeldSlots(context.Background(), 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range mine {
			if s.Master != a.addr {
				continue
			}
			theirs, err := ca.Slots(context.Background(), schema.Slots{s.ID})
			if err != nil {
				t.Fatal(err)
			}
			r, _ := theirs[0].Replica(b.addr)
			if s.State != StateConnected || r.Lag == nil || *r.Lag != 0 || s.Offset != theirs[0].Offset {
				return false
			}
		}
		return true
	})
}

// isWrite tells a request that changes something.
func isWrite(cmd []string) bool {
	sub := ""
	if len(cmd) > 1 {
		sub = strings.ToUpper(cmd[1])
	}
	switch strings.ToUpper(cmd[0]) {
	case "PKCLUSTER":
		return sub != "INFO"
	case "CONFIG":
		return sub != "GET"
	case "SLAVEOF", "SET", "DEL":
		return true
	}
	return false
}

// world makes a conformance world of servers; own is the step's target.
func world(own *server, others map[string]*server, with map[string]any, snapshot func() string) conformance.World {
	w := conformance.World{
		Targets: map[string]conformance.Target{"own": own.target()}, Target: "own",
		With: with, Secrets: []string{password}, Snapshot: snapshot, Wall: true,
	}
	for name, s := range others {
		w.Targets[name] = s.target()
	}
	if own.sim == nil {
		return w
	}
	w.Writes = func() int { return len(own.sim.Writes()) }
	w.Intercept = func(f func(bool) conformance.Fault) {
		if f == nil {
			own.sim.SetIntercept(nil)
			return
		}
		own.sim.SetIntercept(func(cmd []string) fault.Action {
			if strings.EqualFold(cmd[0], "AUTH") {
				return fault.Pass()
			}
			switch f(isWrite(cmd)) {
			case conformance.LostBefore:
				return fault.CutBefore()
			case conformance.LostAfter:
				return fault.CutAfter()
			case conformance.Hang:
				return fault.Hang()
			}
			return fault.Pass()
		})
	}
	return w
}

// TestConformance holds every kind to the contract, on simulated servers, and on the real one where PIKA_BIN names it.
func TestConformance(t *testing.T) {
	for _, b := range []func() backend{simulated, realOnes} {
		t.Run(b().name, func(t *testing.T) {
			if b().name == "pika" && realBinary() == "" {
				t.Skip("PIKA_BIN names no pika 3.4: the kinds were held to the simulated one alone")
			}
			for _, d := range Kinds() {
				f, ok := fixtures(b)[d.Name]
				if !ok {
					t.Errorf("%s has no fixture", d.Name)
					continue
				}
				t.Run(d.Name, func(t *testing.T) { conformance.Run(t, d, f) })
			}
		})
	}
}

func fixtures(b func() backend) map[string]conformance.Fixture {
	return map[string]conformance.Fixture{
		"pika.info": {New: func(t *testing.T) conformance.World {
			a := b().start(t, options{pass: password, slots: "0-3"})
			return world(a, nil, nil, held(t, a))
		}},
		"pika.check-release": {New: func(t *testing.T) conformance.World {
			b := b()
			a, o := b.start(t, options{pass: password, auth: password}), b.start(t, options{pass: password, auth: password})
			return world(a, map[string]*server{"other": o}, map[string]any{"peer": "other"}, held(t, a))
		}},
		"pika.check-rsync-port": {New: func(t *testing.T) conformance.World {
			a := b().start(t, options{pass: password})
			return onHost(world(a, nil, map[string]any{"host": "machine"}, held(t, a)))
		}},
		"pika.create-instance": {New: createWorld},
		"pika.addslots": {New: func(t *testing.T) conformance.World {
			a := b().start(t, options{pass: password, slots: "0-3"})
			return world(a, nil, map[string]any{"slots": "3-6", "pause": time.Millisecond}, held(t, a))
		}},
		"pika.delslots": {New: func(t *testing.T) conformance.World {
			b := b()
			a, o := b.start(t, options{pass: password, slots: "0-3", auth: password}), b.start(t, options{pass: password, slots: "0-3", auth: password})
			for slot := range 2 {
				a.do(t, "SET", "{"+tagOf(slot, slotNumber)+"}k", "1")
				o.do(t, "SET", "{"+tagOf(slot, slotNumber)+"}k", "1")
			}
			follow(t, a, o, "2-3")
			return world(a, map[string]*server{"other": o}, map[string]any{"slots": "1-2,7", "served_by": "other", "detach": true, "settle": 20 * time.Millisecond}, relations(t, a, o))
		}},
		"pika.slotsslaveof": {
			New: func(t *testing.T) conformance.World {
				b := b()
				a, o := b.start(t, options{pass: password, slots: "0-3", auth: password}), b.start(t, options{pass: password, slots: "0-3", auth: password})
				o.do(t, "SET", "{"+tagOf(1, slotNumber)+"}k", "1")
				return world(a, map[string]*server{"other": o}, map[string]any{"slots": "1-2", "master": "other", "force": true}, relations(t, a, o))
			},
		},
		"pika.await-slots": {New: func(t *testing.T) conformance.World {
			b := b()
			o := options{pass: password, slots: "0-3", auth: password, pace: 0.02}
			a, m := b.start(t, o), b.start(t, o)
			if a.sim != nil {
				a.sim.SetReplyOvertaken(once(1))
			}
			h, p, _ := net.SplitHostPort(m.addr)
			a.do(t, "PKCLUSTER", "SLOTSSLAVEOF", h, p, "1-2", "force")
			if a.sim != nil {
				state(t, a, 1, StateWaitReply)
				state(t, a, 2, StateConnected)
			}
			return world(a, map[string]*server{"other": m}, map[string]any{"slots": "1-2", "master": "other", "stuck_after": 600 * time.Millisecond, "every": 20 * time.Millisecond}, relations(t, a, m))
		}},
		"pika.slot-info": {New: func(t *testing.T) conformance.World {
			b := b()
			a, o := b.start(t, options{pass: password, slots: "0-3"}), b.start(t, options{pass: password, slots: "0-3"})
			follow(t, a, o, "1-2")
			return world(a, nil, map[string]any{"slots": "0-2"}, relations(t, a, o))
		}},
		"pika.check-applied": {
			Blind: "a check leaves nothing behind that could be seen",
			New: func(t *testing.T) conformance.World {
				b := b()
				a, r := b.start(t, options{pass: password, slots: "0-3", auth: password}), b.start(t, options{pass: password, slots: "0-3", auth: password})
				a.do(t, "SET", key(1, "k"), "1")
				follow(t, r, a, "1-2")
				return world(a, map[string]*server{"replica": r}, map[string]any{"slots": "1-2", "replica": "replica"}, func() string {
					return fmt.Sprint(a.do(t, "SLOTSSCAN", "1", "0", "COUNT", "100"), relations(t, r, a)())
				})
			},
		},
		"pika.slaveof": {New: func(t *testing.T) conformance.World {
			b := b()
			a, o := b.start(t, options{mode: Classic, pass: password, auth: password}), b.start(t, options{mode: Classic, pass: password, auth: password})
			o.do(t, "SET", "k", "1")
			return world(a, map[string]*server{"other": o}, map[string]any{"master": "other", "force": true}, func() string {
				i, err := a.client(t).Info(context.Background(), "replication")
				return fmt.Sprint(i.Role, i.Master == o.addr, err)
			})
		}},
		"pika.count-keys": {New: func(t *testing.T) conformance.World {
			a := b().start(t, options{pass: password, slots: "0-3"})
			a.do(t, "SET", "{"+tagOf(1, slotNumber)+"}k", "1")
			return world(a, nil, map[string]any{"every": 5 * time.Millisecond}, held(t, a))
		}},
		"pika.config-set": {New: func(t *testing.T) conformance.World {
			a := b().start(t, options{pass: password})
			return world(a, nil, map[string]any{"name": "db-sync-speed", "value": 7}, func() string { return fmt.Sprint(a.do(t, "CONFIG", "GET", "db-sync-speed")) })
		}},
		"pika.check-keys": {New: func(t *testing.T) conformance.World { // of releases that migrate by keys alone, which the real one here is not
			a := simulated().start(t, options{release: "2.3.6", pass: password})
			a.do(t, "RPUSH", "queue", "1", "2")
			return world(a, nil, map[string]any{"most": int64(10)}, func() string { return fmt.Sprint(a.do(t, "LRANGE", "queue", "0", "-1")) })
		}},
		"pika.check-write": {
			Blind: "a try leaves nothing behind that could be seen",
			New: func(t *testing.T) conformance.World {
				a := b().start(t, options{pass: password, slots: "0-3"})
				keys := []string{"GET", "check:{" + tagOf(1, slotNumber) + "}", "GET", "check:{" + tagOf(2, slotNumber) + "}"}
				return world(a, nil, map[string]any{"key_prefix": "check:", "slots": "1-2"}, func() string {
					return fmt.Sprint(a.do(t, keys[:2]...), a.do(t, keys[2:]...))
				})
			},
		},
	}
}

// createWorld has no server yet; the program is this test's own binary, which then is a simulated server with real ports,
// or the real one.
func createWorld(t *testing.T) conformance.World {
	in := createIn{Dir: filepath.Join(t.TempDir(), "new"), Binary: realBinary()}
	s := &server{addr: fmt.Sprintf("127.0.0.1:%d", freePort(t)), pass: password, dir: in.Dir}
	if in.Binary == "" {
		in.Binary, _ = os.Executable()
	}
	withRsync(t)
	t.Cleanup(func() {
		m := host.Local()
		if p, live := in.process(context.Background(), m); live {
			_ = m.Signal(context.Background(), p, "KILL", false)
			eventually(t, "the server is gone", func() bool {
				_, err := m.Process(context.Background(), p.PID)
				return err != nil
			})
		}
		endDaemon(in)
	})
	return onHost(world(s, nil, map[string]any{"dir": in.Dir, "binary": in.Binary, "config": map[string]any{
		"network-interface": "lo", "instance-mode": Sharding, "default-slot-num": slotNumber, "requirepass": password, "userpass": password, "write-buffer-size": 1 << 20,
	}}, up(s)))
}

// withRsync puts a program of that name into PATH where there is none: nothing is copied with it here.
func withRsync(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("rsync"); err == nil {
		return
	}
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "rsync"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
}

func onHost(w conformance.World) conformance.World {
	w.Targets["machine"] = conformance.Target{Kind: host.Target().Define(), Config: map[string]any{"local": true}}
	return w
}

// up tells whether anybody listens.
func up(s *server) func() string {
	return func() string {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			return "down"
		}
		_ = c.Close()
		return "up"
	}
}

// held lists the slots that a server holds, with all that they say.
func held(t *testing.T, s *server) func() string {
	return func() string {
		text, err := s.client(t).text(context.Background(), "PKCLUSTER", "INFO", "slot")
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
}

// relations lists whom a server's slots follow.
func relations(t *testing.T, s, master *server) func() string {
	return func() string {
		slots, err := s.client(t).HeldSlots(context.Background(), 0)
		if err != nil {
			t.Fatal(err)
		}
		text := ""
		for _, sl := range slots {
			text += fmt.Sprintf("%d follows %q\n", sl.ID, strings.Replace(sl.Master, master.addr, "master", 1))
		}
		return text
	}
}

package pika

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"runbook/internal/simulate/fault"
	"runbook/schema"
	"runbook/steps"
	"runbook/steps/conformance"
)

// env is what kinds run in: own is the step's target.
func env(t *testing.T, own *server, others map[string]*server) *conformance.Env {
	t.Helper()
	e := conformance.NewEnv(world(own, others, nil, nil))
	t.Cleanup(func() { _ = e.Close() })
	return e
}

func looking(t *testing.T, own *server, others map[string]*server) steps.View {
	return steps.NewView(env(t, own, others))
}

// step plans and applies as the engine does, so that undo finds what was before.
type step[In, Out any] struct {
	t   *testing.T
	k   *steps.Kind[In, Out]
	in  In
	env *conformance.Env
}

func begin[In, Out any](t *testing.T, k *steps.Kind[In, Out], in In, e *conformance.Env) *step[In, Out] {
	t.Helper()
	s := &step[In, Out]{t: t, k: k, in: in, env: e}
	v := steps.NewView(e)
	change, err := k.Plan(t.Context(), &v, in)
	if err != nil {
		t.Fatalf("plan: %v", err)
	}
	e.SetBefore(change.Before)
	return s
}

func (s *step[In, Out]) check() error {
	return s.k.Check(s.t.Context(), steps.NewView(s.env), s.in)
}

func (s *step[In, Out]) apply() {
	s.t.Helper()
	if s.k.Check != nil {
		if err := s.check(); err != nil {
			s.t.Fatalf("check: %v", err)
		}
	}
	if _, err := s.k.Apply(s.t.Context(), steps.NewSession(s.env), s.in); err != nil {
		s.t.Fatalf("apply: %v", err)
	}
}

func (s *step[In, Out]) undo() error {
	return s.k.Undo(s.t.Context(), steps.NewSession(s.env), s.in, nil)
}

// refused wants an error of kind precondition or conflict with these words.
func refused(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("not refused; wanted %q", words)
		return
	}
	if !isKind(err, "precondition", "conflict") {
		t.Errorf("refused with kind %s: %v", steps.Classify(err).Kind, err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error()+" "+steps.Classify(err).Hint, w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
}

// asked records the requests of clients that a server gets, by their first words.
func asked(s *server) func() []string {
	var mu sync.Mutex
	var got []string
	s.sim.SetIntercept(func(cmd []string) fault.Action {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, strings.ToUpper(strings.Join(cmd, " ")))
		return fault.Pass()
	})
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		list := got
		got = nil
		return list
	}
}

// orders gives the requests that change slots or replication.
func orders(s *server) []string {
	var list []string
	for _, w := range s.sim.Writes() {
		if strings.EqualFold(w[0], "PKCLUSTER") || strings.EqualFold(w[0], "SLAVEOF") {
			list = append(list, strings.ToUpper(strings.Join(w[1:], " ")))
		}
	}
	return list
}

func key(slot int, name string) string { return "{" + tagOf(slot, slotNumber) + "}" + name }

func state(t *testing.T, s *server, slot int, want string) {
	t.Helper()
	eventually(t, fmt.Sprintf("slot %d of %s is %s", slot, s.addr, want), func() bool { return s.slot(t, slot).State == want })
}

func TestCountKeysIsOfNow(t *testing.T) {
	a := simulated().start(t, options{slots: "0-3"})
	v := looking(t, a, nil)
	for i := range 3 {
		for n := range 10 {
			a.do(t, "SET", key(1, fmt.Sprint("s", i, n)), "v")
		}
		a.do(t, "HSET", key(2, fmt.Sprint("h", i)), "f", "v")
		out, err := readCountKeys(t.Context(), v, countKeysIn{Every: time.Millisecond})
		if err != nil || out.Strings != int64(10*(i+1)) || out.Hashes != int64(i+1) || out.Total != out.Strings+out.Hashes || out.At == "" {
			t.Errorf("after %d rounds: %+v, %v", i+1, out, err)
		}
	}
}

func TestCheckWrite(t *testing.T) {
	b := simulated()
	a, r := b.start(t, options{slots: "0-3"}), b.start(t, options{slots: "0-3"})
	follow(t, r, a, "1")
	apply := func(s *server, in checkWriteIn) error {
		_, err := applyCheckWrite(t.Context(), steps.NewSession(env(t, s, nil)), in)
		return err
	}
	if err := apply(r, checkWriteIn{KeyPrefix: "c:", Slots: schema.Slots{1}}); !isKind(err, "readonly") || !strings.Contains(err.Error(), "Server in read-only") {
		t.Errorf("on a replica: %v", err)
	}
	if err := apply(r, checkWriteIn{KeyPrefix: "c:"}); err != nil {
		t.Errorf("without slots it takes one that is served: %v", err)
	}
	if err := apply(a, checkWriteIn{KeyPrefix: "c:", Slots: schema.Slots{5}}); !isKind(err, "absent") {
		t.Errorf("on a slot that is absent: %v", err)
	}
	users := "c:{" + tagOf(2, slotNumber) + "}"
	a.do(t, "SET", users, "a user's value")
	refused(t, apply(a, checkWriteIn{KeyPrefix: "c:", Slots: schema.Slots{2}}), "is no marker")
	if got := a.do(t, "GET", users); got != "a user's value" {
		t.Errorf("the user's key is %v", got)
	}
	if a.sim.SlotKeys(0) != 0 || r.sim.SlotKeys(0) != 0 {
		t.Error("a marker was left")
	}
}

func TestSlaveOfRefuses(t *testing.T) {
	b := simulated()
	a, r, old := b.start(t, options{mode: Classic}), b.start(t, options{mode: Classic}), b.start(t, options{release: "2.3.6"})
	older, sharded := b.start(t, options{release: "2.3.0"}), b.start(t, options{slots: "0"})
	secret := b.start(t, options{mode: Classic, pass: password})
	a.do(t, "SET", "k", "v")
	names := map[string]*server{"a": a, "r": r, "old": old, "older": older, "sharded": sharded, "secret": secret}
	for _, c := range []struct {
		name string
		own  *server
		in   slaveOfIn
		want []string
	}{
		{"a binlog of its own", a, slaveOfIn{Master: "r"}, []string{"binlog of its own", "force: true"}},
		{"2.3 and 3.4", old, slaveOfIn{Master: "a"}, []string{"2.3.6 and 3.4.0 do not replicate"}},
		{"2.3.6 and 2.3.0", old, slaveOfIn{Master: "older"}, []string{"do not replicate", "server ids"}},
		{"a sharded one", sharded, slaveOfIn{Master: "a"}, []string{"mode sharding", "pika.slotsslaveof"}},
		{"another password", r, slaveOfIn{Master: "secret"}, []string{"masterauth is not the master's requirepass"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := checkSlaveOf(t.Context(), looking(t, c.own, names), c.in)
			refused(t, err, c.want...)
			if err != nil && strings.Contains(err.Error(), password) {
				t.Error("the password is shown")
			}
		})
	}
	s := begin(t, slaveOf(), slaveOfIn{Master: "a"}, env(t, r, names))
	s.apply()
	eventually(t, "the replica is connected", func() bool {
		out, err := readInfo(t.Context(), looking(t, r, nil), infoIn{})
		return err == nil && out.ReplStateName == StateConnected && out.MasterLink == "up" && out.MasterAddr == a.addr && out.Mode == Classic
	})
	refused(t, checkSlaveOf(t.Context(), looking(t, a, names), slaveOfIn{Master: "r", Force: true}), "follows this one")
	if err := s.undo(); err != nil {
		t.Errorf("undo: %v", err)
	}
	if i, err := r.client(t).Info(t.Context(), "replication"); err != nil || i.Master != "" {
		t.Errorf("after undo it follows %q, %v", i.Master, err)
	}
}

// 2.3 shows its states by numbers, which mean other states than later releases' would.
func TestStatesHaveOneName(t *testing.T) {
	b := simulated()
	a, r := b.start(t, options{release: "2.3.6"}), b.start(t, options{release: "2.3.6"})
	begin(t, slaveOf(), slaveOfIn{Master: schema.Endpoint(a.addr), Force: true}, env(t, r, nil)).apply()
	v := looking(t, r, nil)
	eventually(t, "it is connected, by name and by number", func() bool {
		out, err := readInfo(t.Context(), v, infoIn{})
		return err == nil && out.ReplStateName == StateConnected && out.ReplState != nil && *out.ReplState == 3 && out.Release == "2.3.6"
	})
	for code, name := range map[int64]string{3: StateWaitDBSync, 5: StateConnected, 9: "unknown state 9"} {
		if got := StateName(Release{Major: 3, Minor: 2}, code); got != name {
			t.Errorf("state %d of 3.2 is %s", code, got)
		}
	}
}

func TestClientThatLooksRefusesToChange(t *testing.T) {
	a := simulated().start(t, options{slots: "0-1"})
	c := Open(Config{Addr: schema.Addr(a.addr)}, steps.ReadOnly)
	defer func() { _ = c.Close() }()
	for _, line := range []string{
		"PKCLUSTER ADDSLOTS 1", "pkcluster slotsslaveof no one 1", "PKCLUSTER", "SLAVEOF no one", "SET k v", "SLOTSDEL 1", "SLOTSMGRTTAGSLOT 127.0.0.1 1 1 1",
		"SLOTSMGRT-EXEC-WRAPPER k GET k", "SLOTSRELOAD", "CONFIG SET db-sync-speed 1", "PURGELOGSTO write2file0", "BGSAVE", "SHUTDOWN",
	} {
		if _, err := c.Do(t.Context(), strings.Fields(line)...); !isKind(err, "refused-write") {
			t.Errorf("%s: %v", line, err)
		}
	}
	for _, line := range []string{"PKCLUSTER INFO slot", "SLOTSINFO", "SLOTSHASHKEY a", "SLOTSSCAN 0 0", "INFO", "CONFIG GET port"} {
		if _, err := c.Do(t.Context(), strings.Fields(line)...); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
	if w := a.sim.Writes(); len(w) != 0 {
		t.Errorf("sent %q", w)
	}
}

package zookeeper

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"runbook/schema"
	"runbook/steps"
	"runbook/steps/conformance"
)

// step is one kind in one world, begun: planned, and ready to act.
type step struct {
	t   *testing.T
	def *steps.Definition
	env *conformance.Env
	in  any
}

func begun(t *testing.T, name string, w conformance.World) *step {
	t.Helper()
	d := kind(t, name)
	s := &step{t: t, def: d, env: conformance.NewEnv(w), in: reflect.New(d.In).Interface()}
	t.Cleanup(func() { _ = s.env.Close() })
	if err := schema.Bind(w.With, s.in); err != nil {
		t.Fatal(err)
	}
	if d.HasPlan {
		v := steps.NewView(s.env)
		change, err := d.Plan(t.Context(), &v, s.in)
		if err != nil {
			t.Fatal(err)
		}
		s.env.SetBefore(change.Before)
	}
	return s
}

func (s *step) check() error { return s.def.Check(s.t.Context(), steps.NewView(s.env), s.in) }

func (s *step) apply() (any, error) {
	return s.def.Apply(s.t.Context(), steps.NewSession(s.env), s.in)
}

func (s *step) undo() error {
	return s.def.Undo(s.t.Context(), steps.NewSession(s.env), s.in, nil)
}

func TestGet(t *testing.T) {
	h := newHouse(t, "/json", `{"a": [1, true]}`, "/text", "no json", "/bytes", "\xff\xfe", "/json/b", "", "/json/a", "")
	read := func(path string) getOut {
		s := begun(t, "zookeeper.get", h.world(map[string]any{"path": path}))
		out, err := s.def.Read(t.Context(), steps.NewView(s.env), s.in)
		if err != nil {
			t.Fatal(err)
		}
		return out.(getOut)
	}
	out := read("/json")
	want := map[string]any{"a": []any{1.0, true}}
	if !out.Exists || *out.Value != `{"a": [1, true]}` || !reflect.DeepEqual(out.JSON, want) || *out.Version != 0 || *out.Czxid == 0 || strings.Join(out.Children, " ") != "a b" {
		t.Errorf("%+v", out)
	}
	if out := read("/text"); *out.Value != "no json" || out.JSON != nil || len(out.Children) != 0 || out.Children == nil {
		t.Errorf("a text: %+v", out)
	}
	if out := read("/bytes"); !out.Exists || out.Value != nil {
		t.Errorf("bytes that are no text: %+v", out)
	}
	if out := read("/nothing"); out.Exists || out.Value != nil || out.Version != nil || out.Czxid != nil {
		t.Errorf("no node: %+v", out)
	}
}

func TestSetKeepsWhatOthersWrote(t *testing.T) {
	h := newHouse(t, "/a", "old")
	other := h.client(steps.ReadWrite)
	s := begun(t, "zookeeper.set", h.world(map[string]any{"path": "/a", "value": "new"}))
	if _, err := other.Set(t.Context(), "/a", []byte("theirs"), AnyVersion); err != nil {
		t.Fatal(err)
	}
	_, err := s.apply()
	fails(t, err, "conflict", false)
	fails(t, s.undo(), "conflict", false)
	if data, _, _ := other.Read(t.Context(), "/a"); string(data) != "theirs" {
		t.Errorf("the other's change is gone: %q", data)
	}
	s = begun(t, "zookeeper.set", h.world(map[string]any{"path": "/a", "value": "new", "expect_version": 0}))
	fails(t, s.check(), "precondition", false)
}

// A node that came, or came anew, since the step started has version 0 like the one that was wanted.
func TestSetKeepsWhatOthersCreated(t *testing.T) {
	h := newHouse(t, "/again", "old")
	other := h.client(steps.ReadWrite)
	for _, path := range []string{"/new", "/again"} {
		s := begun(t, "zookeeper.set", h.world(map[string]any{"path": path, "value": "ours", "create": true}))
		if path == "/again" {
			if err := other.Delete(t.Context(), path, AnyVersion); err != nil {
				t.Fatal(err)
			}
		}
		if err := other.Create(t.Context(), path, []byte("theirs"), Anyone, false); err != nil {
			t.Fatal(err)
		}
		_, err := s.apply()
		fails(t, err, "conflict", false)
		if data, _, _ := other.Read(t.Context(), path); string(data) != "theirs" {
			t.Errorf("%s: the other's node is overwritten: %q", path, data)
		}
	}
}

func TestSetGivesTheValueBefore(t *testing.T) {
	h := newHouse(t, "/a", "old")
	s := begun(t, "zookeeper.set", h.world(map[string]any{"path": "/a", "value": []any{1, "b"}}))
	out, err := s.apply()
	if err != nil {
		t.Fatal(err)
	}
	if o := out.(setOut); o.Version != 1 || o.Before == nil || *o.Before != "old" {
		t.Errorf("%+v", o)
	}
	if data, _, _ := h.client(steps.ReadOnly).Read(t.Context(), "/a"); string(data) != `[1,"b"]` {
		t.Errorf("a list is written as JSON: %s", data)
	}
	s = begun(t, "zookeeper.set", h.world(map[string]any{"path": "/nothing", "value": "x"}))
	fails(t, s.check(), "precondition", false)
}

func TestCreateRefusesWhatIsAnothers(t *testing.T) {
	h := newHouse(t, "/a", "theirs")
	s := begun(t, "zookeeper.create", h.world(map[string]any{"path": "/a", "value": "ours"}))
	fails(t, s.check(), "precondition", false)
	_, err := s.apply()
	fails(t, err, "conflict", false)
	if err := s.undo(); err != nil {
		t.Errorf("nothing was created, so there is nothing to undo: %v", err)
	}
	s = begun(t, "zookeeper.create", h.world(map[string]any{"path": "/b"}))
	if _, err := s.apply(); err != nil {
		t.Fatal(err)
	}
	if err := h.client(steps.ReadWrite).Create(t.Context(), "/b/c", nil, Anyone, false); err != nil {
		t.Fatal(err)
	}
	fails(t, s.undo(), "conflict", false)
}

// A runner that comes up after a crash finds the node of its dead predecessor, which goes with its session.
func TestCreateOutlivesItsPredecessor(t *testing.T) {
	h := newHouse(t)
	dead := h.relayed(steps.ReadWrite)
	if err := dead.Create(t.Context(), "/lock", []byte("ours"), Anyone, true); err != nil {
		t.Fatal(err)
	}
	heal := h.relay.Partition()
	w := h.world(map[string]any{"path": "/lock", "value": "ours", "ephemeral": true})
	w.Targets["zk"].Config["addrs"] = []any{h.direct}
	s := begun(t, "zookeeper.create", w)
	if state, _, err := s.def.Probe(t.Context(), steps.NewView(s.env), s.in); state != steps.Unclear || err != nil {
		t.Errorf("probe: %s, %v", state, err)
	}
	if _, err := s.apply(); err != nil {
		t.Fatal(err)
	}
	heal()
	if n, err := h.client(steps.ReadOnly).Node(t.Context(), "/lock"); err != nil || n.Owner == 0 || dead.owns(n) {
		t.Errorf("%+v, %v", n, err)
	}
}

func TestCreateDoesNotTakeFromTheLiving(t *testing.T) {
	h := newHouse(t)
	if err := h.client(steps.ReadWrite).Create(t.Context(), "/lock", nil, Anyone, true); err != nil {
		t.Fatal(err)
	}
	w := h.world(map[string]any{"path": "/lock", "ephemeral": true})
	w.Targets["zk"].Config["session_timeout"] = 500 * time.Millisecond
	_, err := begun(t, "zookeeper.create", w).apply()
	fails(t, err, "conflict", false)
	if err == nil || !strings.Contains(err.Error(), "of session 0x") {
		t.Errorf("says not whose it is: %v", err)
	}
}

func TestDeleteRefuses(t *testing.T) {
	h := newHouse(t, "/a", "", "/a/b", "", "/c", "old")
	s := begun(t, "zookeeper.delete", h.world(map[string]any{"path": "/a"}))
	if err := s.check(); err == nil || !strings.Contains(err.Error(), "1 children: b") {
		t.Errorf("a node with children: %v", err)
	}
	other := h.client(steps.ReadWrite)
	s = begun(t, "zookeeper.delete", h.world(map[string]any{"path": "/c"}))
	if _, err := other.Set(t.Context(), "/c", []byte("changed"), AnyVersion); err != nil {
		t.Fatal(err)
	}
	_, err := s.apply()
	fails(t, err, "conflict", false)
	s = begun(t, "zookeeper.delete", h.world(map[string]any{"path": "/c"}))
	if err := other.Delete(t.Context(), "/c", AnyVersion); err != nil {
		t.Fatal(err)
	}
	if err := other.Create(t.Context(), "/c", []byte("another"), Anyone, false); err != nil {
		t.Fatal(err)
	}
	_, err = s.apply()
	fails(t, err, "conflict", false)
}

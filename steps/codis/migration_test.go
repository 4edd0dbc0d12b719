package codis

import (
	"strings"
	"testing"
	"time"

	"runbook/internal/simulate/resp"
	"runbook/steps"
)

func moving(more ...any) map[string]any {
	with := map[string]any{"slots": "1-3", "to_group": 2, "every": 200 * time.Millisecond, "stall": time.Second}
	for i := 0; i+1 < len(more); i += 2 {
		with[more[i].(string)] = more[i+1]
	}
	return with
}

// Keys move, progress tells how far it is, and the interval is what it was.
func TestMigration(t *testing.T) {
	w := newWorld(t)
	w.put("slots/action/interval/:xauth/5", nil)
	w.one.fill(1, 20)
	w.one.fill(3, 10)
	s := w.step("codis.migrate-slots", moving("interval", 2*time.Millisecond))
	out, err := s.apply()
	if err != nil {
		t.Fatal(err)
	}
	if out.(migrateSlotsOut).Remaining != 0 || w.two.has(1) != 20 || w.two.has(3) != 10 || w.one.has(1) != 0 {
		t.Errorf("%+v: %d and %d keys moved", out, w.two.has(1), w.two.has(3))
	}
	if got := w.memory(); got != "5 false" {
		t.Errorf("the interval is left at %s", got)
	}
	all := s.env.Progressed()
	last := all[len(all)-1]
	if last.Unit != "keys" || last.Done != 30 || last.Total != 30 || !strings.Contains(last.Text, "3 of 3 slots") {
		t.Errorf("progress: %+v", last)
	}
	if !strings.Contains(strings.Join(texts(all), "\n"), "keys/s") {
		t.Errorf("no rate: %q", texts(all))
	}
}

func texts(all []steps.Progress) []string {
	var t []string
	for _, p := range all {
		t = append(t, p.Text)
	}
	return t
}

// "finished" is the source's word alone.
func TestMigrationThatOnlySeemsToEnd(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer func(w *world) func(args []string) (resp.Value, bool)
		words  string
	}{
		{"the source keeps its keys", func(*world) func([]string) (resp.Value, bool) {
			return func(args []string) (resp.Value, bool) {
				return resp.List(resp.Number(0), resp.Number(0)), args[0] == "SLOTSMGRTTAGSLOT-ASYNC"
			}
		}, "5 keys of these slots are left"},
		{"the source comes back empty", func(w *world) func([]string) (resp.Value, bool) {
			return func(args []string) (resp.Value, bool) {
				if args[0] == "SLOTSMGRTTAGSLOT-ASYNC" {
					clear(w.one.keys)
				}
				return resp.Value{}, false
			}
		}, "slots 1 had keys before and have none"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.one.fill(1, 5)
			w.one.as("", test.answer(w))
			s := w.step("codis.migrate-slots", moving())
			_, err := s.apply()
			if e := steps.Classify(err); e == nil || e.Kind != "conflict" || !e.Unknown || !strings.Contains(err.Error(), test.words) {
				t.Fatalf("%+v", e)
			}
			if got := w.stats().Mapping(1); !got.In(2) {
				t.Errorf("Codis does not call it finished: %+v", got)
			}
			if test.name == "the source keeps its keys" {
				if got := s.probe(); got != steps.Partial {
					t.Errorf("probe: %s", got)
				}
			}
		})
	}
}

// Codis has no failed state: nothing moving is all there is to see.
func TestMigrationThatStalls(t *testing.T) {
	for _, test := range []struct {
		name   string
		breaks func(w *world)
		words  string
		hint   string
	}{
		{"the server fails", func(w *world) {
			w.one.as("", func(args []string) (resp.Value, bool) {
				return resp.Errorf("ERR out of order"), args[0] == "SLOTSMGRTTAGSLOT-ASYNC"
			})
		}, "[ERROR] Slot[0001]: ERR out of order", "goes on trying"},
		{"a proxy dies", func(w *world) { w.proxies[1].Kill() }, "a proxy does not take the change (slot 1 is preparing", "codis.remove-proxy"},
		{"the server moves nothing", func(w *world) {
			w.one.as("", func(args []string) (resp.Value, bool) {
				return resp.List(resp.Number(0), resp.Number(1)), args[0] == "SLOTSMGRTTAGSLOT-ASYNC"
			})
		}, "0 of 3 have moved, and nothing has for 1s", "cannot be cancelled"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.one.fill(1, 5)
			s := w.step("codis.migrate-slots", moving())
			s.plan()
			s.must(s.check())
			test.breaks(w) // after the check
			_, err := s.def.Apply(s.Context(), s.session(), s.in)
			e := steps.Classify(err)
			if e == nil || e.Kind != "stalled" || !e.Unknown || !strings.Contains(err.Error(), test.words) || !strings.Contains(e.Hint, test.hint) {
				t.Fatalf("%+v; %s", e, e.Hint)
			}
			if got := s.probe(); got != steps.Partial {
				t.Errorf("probe: %s", got)
			}
		})
	}
}

// What has not begun is taken back, what has moved goes back, key by key.
func TestUndoOfAMigrationUnderWay(t *testing.T) {
	w := newWorld(t)
	w.one.fill(1, 3)
	before := w.routes(1, 2, 3)()
	s := w.step("codis.migrate-slots", moving())
	s.plan()
	w.put("slots/action/create/:xauth/1/2", nil)
	eventually(t, "slot 1 has moved", func() bool { return w.stats().Mapping(1).In(2) })
	w.put("slots/action/disabled/:xauth/1", nil)
	w.put("slots/action/create-range/:xauth/2/3/2", nil)
	w.put("slots/action/disabled/:xauth/0", nil)
	s.must(s.undo())
	if got := w.routes(1, 2, 3)(); got != before || w.one.has(1) != 3 {
		t.Errorf("before: %s\nafter:  %s\n%d keys", before, got, w.one.has(1))
	}
}

func TestPlanOfAMigration(t *testing.T) {
	w := newWorld(t)
	s := w.step("codis.migrate-slots", moving("slots", "1-3,8,600", "interval", time.Millisecond))
	var got []string
	for _, l := range s.plan().Lines {
		got = append(got, l.Command)
	}
	want := []string{
		"PUT /api/topom/slots/action/interval/<xauth>/1000",
		"PUT /api/topom/slots/action/create-range/<xauth>/1/3/2",
		"PUT /api/topom/slots/action/create/<xauth>/8/2",
		"PUT /api/topom/slots/action/interval/<xauth>/0",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s", strings.Join(got, "\n"))
	}
}

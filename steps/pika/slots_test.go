package pika

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"runbook/internal/simulate/fault"
	"runbook/schema"
	"runbook/steps"
	"runbook/steps/conformance"
)

func TestSlotInfoAsksBothSides(t *testing.T) {
	b := simulated()
	a, r := b.start(t, options{slots: "0-7"}), b.start(t, options{slots: "0-7"})
	r.sim.SetFullSync(fault.Forever)
	a.do(t, "SET", key(1, "k"), "v")
	h, p, _ := net.SplitHostPort(a.addr)
	r.do(t, "PKCLUSTER", "SLOTSSLAVEOF", h, p, "1", "force")
	state(t, r, 1, StateWaitDBSync)
	v := looking(t, r, map[string]*server{"a": a})
	one := func(slots ...int) slotInfoOut {
		t.Helper()
		out, err := readSlotInfo(t.Context(), v, slotInfoIn{Slots: slots})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if out := one(1); !out.InFullSync || out.Connected || out.InSync || out.Lag != nil || out.Master != a.addr || out.Role != "slave" {
		t.Errorf("in a full sync: %+v", out)
	}
	r.sim.SetFullSync(time.Millisecond)
	r.do(t, "PKCLUSTER", "SLOTSSLAVEOF", "no", "one", "1")
	r.do(t, "PKCLUSTER", "SLOTSSLAVEOF", h, p, "1", "force")
	eventually(t, "the slot is in sync", func() bool { return one(1).InSync })
	if out := one(1); out.Lag == nil || *out.Lag != 0 || out.ReplicaState != BinlogSync || out.BinlogOffset != out.MasterOffset || out.Problem != "" {
		t.Errorf("in sync: %+v", out)
	}
	out := one(1, 2)
	if out.InSync || out.Connected || out.Lag != nil || out.Master != mixed || out.State != mixed || len(out.Items) != 2 || !out.Items[0].InSync || out.Items[1].Slot != 2 {
		t.Errorf("of two slots one follows: %+v", out)
	}
	if out := one(1, 9); out.Present || out.Items[1].Present || !strings.Contains(out.Problem, "slot 9: absent") {
		t.Errorf("of two slots one is absent: %+v", out)
	}
	byMaster, err := readSlotInfo(t.Context(), looking(t, a, map[string]*server{"r": r}), slotInfoIn{Slots: schema.Slots{1}, Replica: "r"})
	if err != nil || !byMaster.InSync || byMaster.Role != "master" || len(byMaster.Replicas) != 1 {
		t.Errorf("asked of the master: %+v, %v", byMaster, err)
	}
}

// However many slots there are, one poll costs each side one request.
func TestSlotInfoAsksOnce(t *testing.T) {
	b := simulated()
	a, o, r := b.start(t, options{slots: "0-15"}), b.start(t, options{slots: "0-15"}), b.start(t, options{slots: "0-15"})
	follow(t, r, a, "0-7")
	follow(t, r, o, "8-15")
	atA, atO, atR := asked(a), asked(o), asked(r)
	out, err := readSlotInfo(t.Context(), looking(t, r, nil), slotInfoIn{Slots: schema.Slots{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}})
	if err != nil || !out.InSync || out.Master != mixed {
		t.Errorf("%+v, %v", out, err)
	}
	want := [][]string{{"PKCLUSTER INFO SLOT 0-7"}, {"PKCLUSTER INFO SLOT 8-15"}, {"PKCLUSTER INFO SLOT 0-15"}}
	for i, got := range [][]string{atA(), atO(), atR()} {
		if !slices.Equal(got, want[i]) {
			t.Errorf("asked %q, wanted %q", got, want[i])
		}
	}
}

// 3.2.9 answers for one slot at a time: they are asked for one by one, and the client remembers.
func TestSlotsOfAnOldRelease(t *testing.T) {
	a := simulated().start(t, options{slots: "0-3", release: "3.2.9"})
	got := asked(a)
	c := a.client(t)
	for range 2 {
		slots, err := c.Slots(t.Context(), schema.Slots{2, 9, 1})
		if err != nil || len(slots) != 3 || slots[0].ID != 2 || !slots[0].Present || slots[1].Present || slots[1].ID != 9 || !slots[2].Present {
			t.Errorf("%+v, %v", slots, err)
		}
	}
	want := []string{"PKCLUSTER INFO SLOT 1-2,9"}
	for range 2 {
		want = append(want, "PKCLUSTER INFO SLOT 2", "PKCLUSTER INFO SLOT 9", "PKCLUSTER INFO SLOT 1")
	}
	if list := got(); !slices.Equal(list, want) {
		t.Errorf("asked %q", list)
	}
}

// A master that does not answer leaves the lag unknown, and the follower's own word is no proof.
func TestSlotInfoWithoutMaster(t *testing.T) {
	b := simulated()
	a, r := b.start(t, options{slots: "1"}), b.start(t, options{slots: "1"})
	follow(t, r, a, "1")
	a.sim.Stop()
	out, err := readSlotInfo(t.Context(), looking(t, r, nil), slotInfoIn{Slots: schema.Slots{1}})
	if err != nil || out.Lag != nil || out.InSync || out.ReplicaState != "" || !strings.Contains(out.Problem, "refused") {
		t.Errorf("%+v, %v", out, err)
	}
}

func TestAddSlotsOneByOneWhereClientsWait(t *testing.T) {
	b := simulated()
	serving, empty := b.start(t, options{slots: "0-3"}), b.start(t, options{})
	serving.do(t, "SET", key(0, "k"), "v")
	for _, s := range []*server{serving, empty} {
		begin(t, addSlots(), addSlotsIn{Slots: schema.Slots{3, 4, 5, 6}, Pause: time.Millisecond}, env(t, s, nil)).apply()
	}
	if got := orders(serving); !slices.Equal(got, []string{"ADDSLOTS 4", "ADDSLOTS 5", "ADDSLOTS 6"}) {
		t.Errorf("an instance that serves was sent %q", got)
	}
	if got := orders(empty); !slices.Equal(got, []string{"ADDSLOTS 3-6"}) {
		t.Errorf("an empty instance was sent %q", got)
	}
	refused(t, begin(t, addSlots(), addSlotsIn{Slots: schema.Slots{slotNumber}}, env(t, serving, nil)).check(), "16 slots, 0 to 15")
	refused(t, begin(t, addSlots(), addSlotsIn{Slots: schema.Slots{1}, Table: 3}, env(t, serving, nil)).check(), "no table 3")
}

// Another call under way is waited for, and what it has added is not added again.
func TestAddSlotsWaitsForAnother(t *testing.T) {
	a := simulated().start(t, options{slots: "0"})
	a.sim.SetAddSlot(300 * time.Millisecond)
	var other sync.WaitGroup
	client := a.client(t)
	other.Go(func() { _, _ = client.Do(context.Background(), "PKCLUSTER", "ADDSLOTS", "5") })
	eventually(t, "the other call has come", func() bool { return len(orders(a)) == 1 })
	begin(t, addSlots(), addSlotsIn{Slots: schema.Slots{5, 6}, Pause: time.Millisecond}, env(t, a, nil)).apply()
	other.Wait()
	if got := orders(a); got[len(got)-1] != "ADDSLOTS 6" || !a.slot(t, 5).Present || !a.slot(t, 6).Present {
		t.Errorf("sent %q", got)
	}
}

func TestAddSlotsUndoKeepsWhatIsUsed(t *testing.T) {
	b := simulated()
	source, a := b.start(t, options{slots: "0-7"}), b.start(t, options{slots: "0"})
	for slot := range 6 {
		source.do(t, "SET", key(slot, "k"), "v")
	}
	names := map[string]*server{"source": source}
	in := addSlotsIn{Slots: schema.Slots{0, 1, 2, 3, 4}, Pause: time.Millisecond}
	s := begin(t, addSlots(), in, env(t, a, names))
	s.apply()
	follow(t, a, source, "1-2")
	a.do(t, "PKCLUSTER", "SLOTSSLAVEOF", "no", "one", "1")
	refused(t, s.undo(), "were added to", "slot 2 follows")
	if !a.slot(t, 0).Present || !a.slot(t, 1).Present || !a.slot(t, 2).Present || a.slot(t, 3).Present || a.slot(t, 4).Present {
		t.Errorf("undo must delete 3 and 4 alone: %s", held(t, a)())
	}
	a.do(t, "PKCLUSTER", "SLOTSSLAVEOF", "no", "one", "2")
	refused(t, s.undo(), "was written to")
	s.in.ServedBy = "source"
	if err := s.undo(); err != nil || a.slot(t, 1).Present || a.slot(t, 2).Present || !a.slot(t, 0).Present {
		t.Errorf("undo with served_by must delete the copies: %v, %s", err, held(t, a)())
	}
}

// routes is a router that answers what a test says.
type routes struct{ backends map[int][]string }

func (r *routes) SlotBackends(_ context.Context, slots schema.Slots) (map[int][]string, error) {
	return r.backends, nil
}

// routed puts a router of this name among the targets.
func routed(t *testing.T, own *server, others map[string]*server, r *routes) *conformance.Env {
	t.Helper()
	w := world(own, others, nil, nil)
	k := &steps.TargetKind[struct{}, *routes]{Name: "codis", Open: func(context.Context, struct{}, steps.Access) (*routes, error) { return r, nil }}
	w.Targets["codis"] = conformance.Target{Kind: k.Define()}
	e := conformance.NewEnv(w)
	t.Cleanup(func() { _ = e.Close() })
	return e
}

func TestDelSlotsRefuses(t *testing.T) {
	b := simulated()
	a, o, r := b.start(t, options{slots: "0-7"}), b.start(t, options{slots: "0-4"}), b.start(t, options{slots: "5"})
	for _, slot := range []int{1, 2, 3, 4, 5} {
		a.do(t, "SET", key(slot, "k"), "v")
	}
	o.do(t, "SET", key(1, "k"), "v")
	o.do(t, "SET", key(3, "k"), "v")
	a.do(t, "SET", key(6, "__runner_marker:0"), "left by somebody")
	follow(t, r, a, "5")
	h, p, _ := net.SplitHostPort(a.addr)
	o.do(t, "PKCLUSTER", "SLOTSSLAVEOF", h, p, "4", "force")
	names := map[string]*server{"other": o}
	router := &routes{backends: map[int][]string{1: {o.addr}, 3: {o.addr, a.addr}}}
	for _, c := range []struct {
		name string
		in   delSlotsIn
		want []string
	}{
		{"keys and nobody named", delSlotsIn{Slots: schema.Slots{0, 1}}, []string{"slots 1 hold keys", "served_by"}},
		{"the other has no keys", delSlotsIn{Slots: schema.Slots{1, 2}, ServedBy: "other"}, []string{"slot 2", "has none in it"}},
		{"the other is a replica", delSlotsIn{Slots: schema.Slots{4}, ServedBy: "other", Discard: false}, []string{"slot 4", "follows"}},
		{"a replica follows", delSlotsIn{Slots: schema.Slots{5}, Discard: true}, []string{r.addr + " follows it", "detach: true"}},
		{"clients are routed here", delSlotsIn{Slots: schema.Slots{1, 3}, ServedBy: "other", RoutedBy: "codis"}, []string{"clients of slots 3"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			refused(t, begin(t, delSlots(), c.in, routed(t, a, names, router)).check(), c.want...)
		})
	}
	refused(t, begin(t, delSlots(), delSlotsIn{Slots: schema.Slots{5}, Discard: true}, env(t, r, nil)).check(), "it follows "+a.addr)
	if len(a.sim.Writes()) > 6 {
		t.Errorf("checking has sent %q", a.sim.Writes())
	}
	begin(t, delSlots(), delSlotsIn{Slots: schema.Slots{0, 1, 6, 9}, ServedBy: "other", RoutedBy: "codis", Wait: time.Second}, routed(t, a, names, router)).apply()
	if got := orders(a); !slices.Equal(got, []string{"DELSLOTS 0", "DELSLOTS 1", "DELSLOTS 6"}) {
		t.Errorf("sent %q", got)
	}
}

// A replica that has died is listed until its master gives it up; the server refuses until then, and the step waits.
func TestDelSlotsWaitsUntilAReplicaIsForgotten(t *testing.T) {
	b := simulated()
	a, r := b.start(t, options{slots: "1"}), b.start(t, options{slots: "1"})
	a.do(t, "SET", key(1, "k"), "v")
	follow(t, r, a, "1")
	r.sim.Stop()
	begin(t, delSlots(), delSlotsIn{Slots: schema.Slots{1}, Discard: true, Wait: 30 * time.Second}, env(t, a, nil)).apply()
	if got := orders(a); a.slot(t, 1).Present || len(got) < 2 {
		t.Errorf("sent %q", got)
	}
}

func TestSlotsSlaveOfRefuses(t *testing.T) {
	b := simulated()
	a, o, r, empty := b.start(t, options{slots: "0-7"}), b.start(t, options{slots: "0-7"}), b.start(t, options{slots: "0-7"}), b.start(t, options{slots: "9"})
	classic := b.start(t, options{mode: Classic})
	for slot := range 8 {
		a.do(t, "SET", key(slot, "k"), "v")
	}
	h, p, _ := net.SplitHostPort(a.addr)
	o.do(t, "SET", key(2, "own"), "v")
	follow(t, o, a, "4-5")
	follow(t, r, o, "5")
	o.sim.SetFullSync(fault.Forever)
	o.do(t, "PKCLUSTER", "SLOTSSLAVEOF", h, p, "3", "force")
	state(t, o, 3, StateWaitDBSync)
	names := map[string]*server{"a": a, "o": o, "empty": empty, "classic": classic, "other": b.start(t, options{slots: "0-7"})}
	for _, c := range []struct {
		name string
		own  *server
		in   slotsSlaveOfIn
		want []string
	}{
		{"a binlog of its own", o, slotsSlaveOfIn{Slots: schema.Slots{1, 2}, Master: "a"}, []string{"slot 2", "binlog of its own", "force: true"}},
		{"the history of another", o, slotsSlaveOfIn{Slots: schema.Slots{4}, Master: "other"}, []string{"it follows " + a.addr, "resume: true"}},
		{"resume behind what it has", a, slotsSlaveOfIn{Slots: schema.Slots{1}, Master: "o", Resume: true}, []string{"ahead of the master's"}},
		{"a full sync under way, from another", o, slotsSlaveOfIn{Slots: schema.Slots{3}, Master: "empty"}, []string{"a full sync from " + a.addr + " is under way", "wait 25 s"}},
		{"the master is in a full sync", r, slotsSlaveOfIn{Slots: schema.Slots{3}, Master: "o", Force: true}, []string{"has not caught up with its own master", StateWaitDBSync}},
		{"second hop without force", r, slotsSlaveOfIn{Slots: schema.Slots{4}, Master: "o"}, []string{"filled by a full sync", "force: true"}},
		{"the slot is absent here", empty, slotsSlaveOfIn{Slots: schema.Slots{1}, Master: "a"}, []string{"does not hold the slot", "addslots"}},
		{"the slot is absent there", r, slotsSlaveOfIn{Slots: schema.Slots{1}, Master: "empty"}, []string{"that does not hold the slot"}},
		{"a circle", a, slotsSlaveOfIn{Slots: schema.Slots{4}, Master: "o", Force: true}, []string{"follows this slot"}},
		{"a host name", r, slotsSlaveOfIn{Slots: schema.Slots{1}, Master: schema.Endpoint("localhost:" + p)}, []string{"an IP address and a port are wanted"}},
		{"itself", a, slotsSlaveOfIn{Slots: schema.Slots{1}, Master: schema.Endpoint(a.addr)}, []string{"that is itself"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := looking(t, c.own, names)
			refused(t, checkSlotsSlaveOf(t.Context(), v, c.in), c.want...)
		})
	}
	refused(t, checkSlotsSlaveOf(t.Context(), looking(t, a, map[string]*server{"r": r}), slotsSlaveOfIn{Slots: schema.Slots{4}, Master: "r", Force: true}), "o", "follows this slot")
	if err := checkSlotsSlaveOf(t.Context(), looking(t, r, names), slotsSlaveOfIn{Slots: schema.Slots{1}, Master: "classic"}); !isKind(err, "unsupported") {
		t.Errorf("a classic master: %v", err)
	}
	if err := checkSlotsSlaveOf(t.Context(), looking(t, r, names), slotsSlaveOfIn{Slots: schema.Slots{4}, Master: "o", Force: true}); err != nil {
		t.Errorf("second hop with force, the middle being in sync: %v", err)
	}
}

// An order is sent once: in the middle of a full sync a second one would leave the slot without data for ever.
func TestSlotsSlaveOfIsSentOnce(t *testing.T) {
	b := simulated()
	a, r := b.start(t, options{slots: "0-3"}), b.start(t, options{slots: "0-3"})
	a.do(t, "SET", key(1, "k"), "v")
	r.sim.SetFullSync(100 * time.Millisecond)
	e := env(t, r, map[string]*server{"a": a})
	s := begin(t, slotsSlaveOfKind(), slotsSlaveOfIn{Slots: schema.Slots{1}, Master: "a", Force: true}, e)
	s.apply()
	state(t, r, 1, StateWaitDBSync)
	s.apply()
	s.in.Slots = schema.Slots{1, 2}
	s.apply()
	inSync(t, r, a)
	h, p, _ := net.SplitHostPort(a.addr)
	want := []string{fmt.Sprintf("SLOTSSLAVEOF %s %s 1 FORCE", h, p), fmt.Sprintf("SLOTSSLAVEOF %s %s 2 FORCE", h, p)}
	if got := orders(r); !slices.Equal(got, want) {
		t.Errorf("sent %q, wanted %q", got, want)
	}
	if got := r.sim.SlotKeys(1); got != 1 {
		t.Errorf("%d keys came", got)
	}
}

// A slot in error follows in name alone: it is refused without force, and force heals it.
func TestSlotsSlaveOfHealsAnError(t *testing.T) {
	b := simulated()
	a, r := b.start(t, options{slots: "1"}), b.start(t, options{slots: "1"})
	a.do(t, "SET", key(1, "k"), "v")
	for i := range 5 {
		r.do(t, "SET", key(1, fmt.Sprint("own", i)), "a value that is longer")
	}
	h, p, _ := net.SplitHostPort(a.addr)
	r.do(t, "PKCLUSTER", "SLOTSSLAVEOF", h, p, "1")
	state(t, r, 1, StateError)
	e := env(t, r, map[string]*server{"a": a})
	in := slotsSlaveOfIn{Slots: schema.Slots{1}, Master: "a"}
	refused(t, begin(t, slotsSlaveOfKind(), in, e).check(), "kError", "force: true")
	in.Force = true
	begin(t, slotsSlaveOfKind(), in, e).apply()
	inSync(t, r, a)
}

// Undo leads back to whom a slot followed, and not where somebody else has changed it since.
func TestSlotsSlaveOfUndo(t *testing.T) {
	b := simulated()
	a, r, o := b.start(t, options{slots: "1-2"}), b.start(t, options{slots: "1-2"}), b.start(t, options{slots: "1-2"})
	a.do(t, "SET", key(1, "k"), "v")
	follow(t, r, a, "1-2")
	e := env(t, r, map[string]*server{"a": a, "o": o})
	s := begin(t, slotsSlaveOfKind(), slotsSlaveOfIn{Slots: schema.Slots{1, 2}, None: true}, e)
	s.apply()
	if r.slot(t, 1).Follows() || r.slot(t, 2).Follows() {
		t.Error("the slots follow still")
	}
	if err := s.undo(); err != nil {
		t.Errorf("undo: %v", err)
	}
	inSync(t, r, a)
	s.apply()
	r.do(t, "SET", key(1, "own"), "written since")
	refused(t, s.undo(), "ahead of the master's")
	h, p, _ := net.SplitHostPort(o.addr)
	r.do(t, "PKCLUSTER", "SLOTSSLAVEOF", h, p, "1", "force")
	refused(t, s.undo(), "which this step did not make it do")
}

// In a range that fails half-way the error says what each slot does now.
func TestSlotsSlaveOfTellsAHalfDoneRange(t *testing.T) {
	b := simulated()
	a, r := b.start(t, options{slots: "0-3"}), b.start(t, options{slots: "0-3"})
	dead := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	follow(t, r, a, "0-3")
	in := slotsSlaveOfIn{Slots: schema.Slots{0, 1, 2, 3}}
	err := in.send(t.Context(), r.client(t), in.Slots, dead)
	if err == nil || !isKind(err, "refused") || !steps.Classify(err).Temporary || steps.Classify(err).Unknown || !strings.Contains(err.Error(), "the slots now: ") {
		t.Errorf("%v", err)
	}
}

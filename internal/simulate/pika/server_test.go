package pika_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"runbook/internal/simulate/fault"
	"runbook/internal/simulate/pika"
	"runbook/internal/simulate/resp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a few servers of eight slots in one network, in a bubble.
type world struct {
	*testing.T
	network *pika.Network
	s       map[string]*pika.Server
}

// inWorld starts servers a, b, ... that have all slots, and b onward follow nobody yet.
func inWorld(t *testing.T, n int, o pika.Options, f func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, network: pika.NewNetwork(), s: map[string]*pika.Server{}}
		for i := range n {
			name := string(rune('a' + i))
			o := o
			o.Name, o.NoListen, o.Network, o.SlotNum, o.Slots = name, true, w.network, 8, "0-7"
			o.Addr = fmt.Sprintf("127.0.0.1:%d", 9221+i)
			s, err := pika.Start(o)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(s.Close)
			w.s[name] = s
		}
		f(w)
	})
}

// do sends one request as a client.
func (w *world) do(name string, args ...string) resp.Value {
	w.Helper()
	c := w.client(name)
	defer c.Close()
	v, err := c.Do(context.Background(), args...)
	if err != nil && v.Kind != resp.Err {
		w.Fatalf("%s: %q: %v", name, args, err)
	}
	return v
}

func (w *world) client(name string) *resp.Conn {
	w.Helper()
	nc, err := w.s[name].Pipe()
	if err != nil {
		w.Fatal(err)
	}
	return resp.NewConn(nc)
}

func (w *world) ok(name string, args ...string) {
	w.Helper()
	if v := w.do(name, args...); v.Kind == resp.Err {
		w.Fatalf("%s: %q: %s", name, args, v.Str)
	}
}

func (w *world) slot(name string, id int) string {
	w.Helper()
	return w.s[name].Do("pkcluster", "info", "slot", fmt.Sprint(id)).Str
}

func (w *world) shows(name string, id int, want string) {
	w.Helper()
	if got := w.slot(name, id); !strings.Contains(got, want) {
		w.Errorf("slot %d of %s lacks %q:\n%s", id, name, want, got)
	}
}

func (w *world) wait(what string, is func() bool) {
	w.Helper()
	for range 4000 {
		if is() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.Fatalf("never: %s", what)
}

func (w *world) synced(master, replica string, id int) {
	w.Helper()
	w.wait(replica+" follows "+master, func() bool {
		m, r := w.slot(master, id), w.slot(replica, id)
		offset := func(s string) string { s, _, _ = strings.Cut(s, ","); return s }
		return strings.Contains(m, "lag: 0\r\n") && strings.Contains(r, "kConnected") && offset(m) == offset(r)
	})
}

// {t0} lies in slot 1 of 8.
func TestAcknowledgedIsNotApplied(t *testing.T) {
	inWorld(t, 2, pika.Options{}, func(w *world) {
		w.ok("b", "pkcluster", "slotsslaveof", "127.0.0.1", "9221", "1")
		w.synced("a", "b", 1)
		w.s["b"].SetApplyDelay(w.s["b"].ApplyThread("{t0}k"), time.Second)
		w.ok("a", "rpush", "{t0}k", "x")
		w.ok("a", "del", "{t0}k")
		w.ok("a", "set", "{t0}k", "old")
		w.synced("a", "b", 1)
		if v := w.do("b", "get", "{t0}k"); v.Kind != resp.Null {
			t.Errorf("lag 0 and equal offsets, and the write is there already: %q", v.Str)
		}
		w.ok("b", "pkcluster", "slotsslaveof", "no", "one", "1")
		w.ok("b", "set", "{t0}k", "new")
		w.wait("the apply thread is done", func() bool { return w.s["b"].Unapplied() == 0 })
		if v := w.do("b", "get", "{t0}k"); v.Str != "old" {
			t.Errorf("an acknowledged write was not taken back: %q", v.Str)
		}
	})
}

// What libstdc++ gives for std::hash<std::string>, of keys shorter, as long as and longer than its words of eight bytes.
func TestApplyThreadIsThatOfStdHash(t *testing.T) {
	for _, threads := range []uint64{6, 2, 7} {
		s, err := pika.Start(pika.Options{NoListen: true, Addr: "127.0.0.1:9221", Config: map[string]string{"sync-thread-num": fmt.Sprint(threads)}})
		if err != nil {
			t.Fatal(err)
		}
		for key, hash := range map[string]uint64{
			"": 6142509188972423790, "a": 4993892634952068459, "{t0}f0": 13151505894552899210, "12345678": 10113836418918046885,
			"key:100001": 11096153819011006627, "abcdefghijklmnopqrstuvwxyz": 9979622261905367491,
		} {
			if got := s.ApplyThread(key); got != int(hash%threads) {
				t.Errorf("%q among %d: thread %d, want %d", key, threads, got, hash%threads)
			}
		}
		s.Close()
	}
}

// A marker in each apply thread shows that everything before it is applied, since a thread keeps the order.
func TestMarkerFollowsWritesOfItsThread(t *testing.T) {
	inWorld(t, 2, pika.Options{}, func(w *world) {
		w.ok("b", "pkcluster", "slotsslaveof", "127.0.0.1", "9221", "1")
		w.synced("a", "b", 1)
		b := w.s["b"]
		thread := b.ApplyThread("{t0}k")
		b.SetApplyDelay(thread, time.Second)
		w.ok("a", "set", "{t0}k", "v")
		for i := 0; ; i++ {
			if marker := fmt.Sprintf("{t0}marker%d", i); b.ApplyThread(marker) == thread {
				w.ok("a", "set", marker, "1")
				w.wait("the marker is there", func() bool { return w.do("b", "get", marker).Str == "1" })
				break
			}
		}
		if v := w.do("b", "get", "{t0}k"); v.Str != "v" {
			t.Errorf("the marker came before the write: %q", v.Str)
		}
	})
}

// Deleting a slot under an apply thread ends the whole server, some time after the OK: its other slots and their data are
// there after a restart, what was queued is not, and nobody follows anybody any more.
func TestSlotDeletedUnderAnApplyThreadKillsTheServer(t *testing.T) {
	inWorld(t, 2, pika.Options{}, func(w *world) {
		w.ok("a", "set", "{t0}before", "v")
		w.ok("b", "pkcluster", "slotsslaveof", "127.0.0.1", "9221", "0-7", "force")
		w.synced("a", "b", 1)
		w.synced("a", "b", 2)
		other := "k" // in another slot than 1, and in the thread of {t0}k
		for i := 0; slotOf(other, 8) == 1 || w.s["b"].ApplyThread(other) != w.s["b"].ApplyThread("{t0}k"); i++ {
			other = fmt.Sprint("k", i)
		}
		w.s["b"].SetApplyDelay(-1, time.Second)
		w.ok("a", "set", "{t0}k", "v")
		w.wait("the first write is queued", func() bool { return w.s["b"].Unapplied() == 1 }) // slots are replicated in no order among each other
		w.ok("a", "set", other, "v")
		w.wait("both writes are queued", func() bool { return w.s["b"].Unapplied() == 2 })
		w.ok("b", "pkcluster", "slotsslaveof", "no", "one", "1")
		c := w.client("b")
		defer c.Close()
		if v, err := c.Do(context.Background(), "pkcluster", "delslots", "1"); err != nil || v.Str != "OK" {
			t.Fatalf("delslots: %v, %v", v, err)
		}
		w.wait("the server is dead", func() bool { return !w.s["b"].Alive() })
		if v, err := c.Do(context.Background(), "ping"); err == nil {
			t.Errorf("a dead server answers %v", v)
		}
		if err := w.s["b"].Restart(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if w.s["b"].HasSlot(1) || !w.s["b"].OwnsSlot(2) || w.s["b"].Unapplied() != 0 || !w.s["b"].Alive() {
			t.Error("after a restart slot 1 is there, or slot 2 is not, or follows still, or something is queued")
		}
		if v := w.do("b", "get", other); v.Kind != resp.Null {
			t.Errorf("a write that was queued is there: %q", v.Str)
		}
	})
}

// What was applied before the slot is deleted harms nobody.
func TestSlotDeletedAfterItsWritesWereApplied(t *testing.T) {
	inWorld(t, 2, pika.Options{}, func(w *world) {
		w.ok("b", "pkcluster", "slotsslaveof", "127.0.0.1", "9221", "1")
		w.synced("a", "b", 1)
		w.s["b"].SetApplyDelay(-1, time.Second)
		w.ok("a", "set", "{t0}k", "v")
		w.wait("it is queued", func() bool { return w.s["b"].Unapplied() == 1 })
		w.ok("b", "pkcluster", "slotsslaveof", "no", "one", "1")
		w.wait("it is applied", func() bool { return w.s["b"].Unapplied() == 0 })
		w.ok("b", "pkcluster", "delslots", "1")
		time.Sleep(5 * time.Second)
		if !w.s["b"].Alive() {
			t.Error("the server is dead")
		}
	})
}

func TestSecondHopBehindFullSyncNeedsForce(t *testing.T) {
	inWorld(t, 3, pika.Options{}, func(w *world) {
		w.ok("a", "set", "{t0}k", "v")
		w.ok("b", "pkcluster", "slotsslaveof", "127.0.0.1", "9221", "1", "force")
		w.synced("a", "b", 1)
		w.ok("c", "pkcluster", "slotsslaveof", "127.0.0.1", "9222", "1")
		time.Sleep(time.Second)
		w.shows("c", 1, "binlog_offset=0 0,")
		w.shows("c", 1, "kConnected")
		if strings.Contains(w.slot("b", 1), "9223") || w.s["c"].SlotKeys(1) != 0 {
			t.Errorf("the second hop is listed or has data:\n%s", w.slot("b", 1))
		}
		w.ok("c", "pkcluster", "slotsslaveof", "no", "one", "1")
		w.ok("c", "pkcluster", "slotsslaveof", "127.0.0.1", "9222", "1", "force")
		w.synced("b", "c", 1)
		if w.s["c"].SlotKeys(1) != 1 {
			t.Error("no data after a full sync")
		}
	})
}

func TestFullSyncAskedForTwiceNeverEnds(t *testing.T) {
	inWorld(t, 2, pika.Options{FullSync: 5 * time.Second}, func(w *world) {
		w.ok("a", "set", "{t0}k", "v")
		for range 2 {
			w.ok("b", "pkcluster", "slotsslaveof", "127.0.0.1", "9221", "1", "force")
			time.Sleep(time.Second)
		}
		time.Sleep(2 * time.Minute)
		w.shows("b", 1, "kWaitDBSync")
		w.ok("b", "pkcluster", "slotsslaveof", "no", "one", "1")
		w.wait("the master forgets the replica", func() bool { return strings.Contains(w.slot("a", 1), "connected_slaves: 0") })
		w.ok("b", "pkcluster", "slotsslaveof", "127.0.0.1", "9221", "1", "force")
		w.synced("a", "b", 1)
	})
}

func TestRestartForgetsReplication(t *testing.T) {
	inWorld(t, 2, pika.Options{}, func(w *world) {
		migrate := func() string {
			return w.do("a", "slotsmgrttagslot-async", "127.0.0.1", "9222", "1000", "200", "33554432", "1", "500").String()
		}
		w.ok("a", "set", "{t0}k", "v")
		w.ok("b", "pkcluster", "slotsslaveof", "127.0.0.1", "9221", "1")
		w.synced("a", "b", 1)
		if err := w.s["b"].Restart(); err != nil {
			t.Fatal(err)
		}
		if !w.s["b"].OwnsSlot(1) || w.s["b"].SlotKeys(1) != 1 {
			t.Error("a replica that was restarted is no writable master of its slot, or lost the data")
		}
		if got := migrate(); got != "0 1" {
			t.Errorf("the source said %q before it noticed", got)
		}
		time.Sleep(21 * time.Second)
		if got := migrate(); got != "0 0" {
			t.Errorf("the source said %q after it dropped the replica", got)
		}
	})
}

func TestRangeIsNotAtomic(t *testing.T) {
	inWorld(t, 2, pika.Options{}, func(w *world) {
		w.ok("b", "pkcluster", "slotsslaveof", "127.0.0.1", "9221", "0-3")
		w.synced("a", "b", 0)
		v := w.do("b", "pkcluster", "slotsslaveof", "127.0.0.1", "39999", "0-3")
		if v.Str != "ERR Corruption: connect remote node error" {
			t.Errorf("answered %q", v.Str)
		}
		w.shows("b", 0, "Role: Master")
		w.shows("b", 1, "kConnected")
	})
}

func TestDroppedLinkIsNoticedLate(t *testing.T) {
	inWorld(t, 2, pika.Options{}, func(w *world) {
		w.ok("b", "pkcluster", "slotsslaveof", "127.0.0.1", "9221", "1")
		w.synced("a", "b", 1)
		w.network.Drop(w.s["a"], w.s["b"])
		w.ok("a", "set", "{t0}k", "v")
		time.Sleep(15 * time.Second)
		w.shows("a", 1, "SlaveBinlogSync")
		w.shows("b", 1, "kConnected")
		if strings.Contains(w.slot("a", 1), "lag: 0\r\n") {
			t.Error("no lag over a broken link")
		}
		w.synced("a", "b", 1)
		if w.do("b", "get", "{t0}k").Str != "v" {
			t.Error("the write did not come")
		}
	})
}

func TestFrozenServerCarriesOutLater(t *testing.T) {
	inWorld(t, 2, pika.Options{}, func(w *world) {
		w.ok("b", "pkcluster", "slotsslaveof", "127.0.0.1", "9221", "1")
		w.synced("a", "b", 1)
		w.s["b"].Freeze()
		w.ok("a", "set", "{t0}k", "v")
		time.Sleep(5 * time.Second)
		if strings.Contains(w.slot("a", 1), "lag: 0\r\n") {
			t.Error("a frozen replica acknowledged")
		}
		c := w.client("b")
		if err := c.Send("pkcluster", "slotsslaveof", "no", "one", "1"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		_ = c.Close()
		w.shows("b", 1, "kConnected")
		w.s["b"].Thaw()
		w.wait("the request of a client that left", func() bool { return w.s["b"].OwnsSlot(1) })
	})
}

func TestRepeatStalls(t *testing.T) {
	inWorld(t, 2, pika.Options{}, func(w *world) {
		w.ok("a", "set", "{t0}k", "v")
		w.s["b"].SetRepeatStalls(true)
		for range 2 {
			w.ok("b", "pkcluster", "slotsslaveof", "127.0.0.1", "9221", "1")
		}
		time.Sleep(15 * time.Second)
		w.shows("b", 1, "kConnected")
		w.shows("b", 1, "binlog_offset=0 0,")
		w.synced("a", "b", 1)
	})
}

// once says yes to each of these slots one time.
func once(slots ...int) func(int) bool {
	return func(slot int) bool {
		i := slices.Index(slots, slot)
		if i >= 0 {
			slots = slices.Delete(slots, i, i+1)
		}
		return i >= 0
	}
}

// An answer that overtakes its own request leaves a slot waiting for ever, also after a full sync; the same order heals it
// once the master has given the replica up.
func TestReplyOvertaken(t *testing.T) {
	for _, force := range []string{"", "force"} {
		t.Run(force, func(t *testing.T) {
			inWorld(t, 2, pika.Options{}, func(w *world) {
				w.ok("a", "set", "{t0}k", "v")
				w.s["b"].SetReplyOvertaken(once(1))
				order := strings.Fields("pkcluster slotsslaveof 127.0.0.1 9221 1-2 " + force)
				w.ok("b", order...)
				w.synced("a", "b", 2)
				w.wait("the master believes it has a replica", func() bool { return strings.Contains(w.slot("a", 1), "SlaveBinlogSync") })
				w.shows("b", 1, "kWaitReply")
				w.ok("a", "set", "{t0}k", "w")
				time.Sleep(15 * time.Second)
				w.shows("a", 1, "SlaveBinlogSync")
				time.Sleep(time.Minute)
				w.shows("b", 1, "kWaitReply")
				w.shows("a", 1, "connected_slaves: 0")
				w.ok("b", "pkcluster", "slotsslaveof", "127.0.0.1", "9221", "1")
				time.Sleep(time.Second)
				w.shows("b", 1, "kConnected")
				w.synced("a", "b", 1)
			})
		})
	}
}

// Where it is the answer to the request for a full sync, the copy is for nothing: ordered again without force, the slot goes on
// with what it had.
func TestFullSyncOvertaken(t *testing.T) {
	for order, want := range map[string]string{"": "own", "force": "a's"} {
		t.Run("again "+order, func(t *testing.T) {
			inWorld(t, 2, pika.Options{}, func(w *world) {
				w.ok("a", "set", "{t0}k", "a's")
				w.ok("b", "set", "{t0}k", "own")
				w.s["b"].SetFullSyncOvertaken(once(1))
				w.ok("b", "pkcluster", "slotsslaveof", "127.0.0.1", "9221", "1", "force")
				time.Sleep(10 * time.Second)
				w.shows("b", 1, "kWaitReply")
				w.shows("a", 1, "SlaveNotSync")
				time.Sleep(time.Minute)
				w.shows("b", 1, "kWaitReply")
				w.shows("a", 1, "connected_slaves: 0")
				w.ok("b", strings.Fields("pkcluster slotsslaveof 127.0.0.1 9221 1 "+order)...)
				w.synced("a", "b", 1)
				if got := w.do("b", "get", "{t0}k").Str; got != want {
					t.Errorf("the slot has %q", got)
				}
			})
		})
	}
}

// Ordered again while the master still lists it, such a slot says kConnected and gets nothing for 20 s more.
func TestReplyOvertakenOrderedAgainTooEarly(t *testing.T) {
	inWorld(t, 2, pika.Options{}, func(w *world) {
		w.ok("a", "set", "{t0}k", "v")
		w.s["b"].SetReplyOvertaken(once(1))
		for range 2 {
			w.ok("b", "pkcluster", "slotsslaveof", "127.0.0.1", "9221", "1")
			time.Sleep(10 * time.Second)
		}
		w.shows("b", 1, "kConnected")
		w.shows("b", 1, "binlog_offset=0 0,")
		w.synced("a", "b", 1)
	})
}

func TestLagThatNeverEnds(t *testing.T) {
	inWorld(t, 2, pika.Options{Lag: fault.Forever}, func(w *world) {
		w.ok("b", "pkcluster", "slotsslaveof", "127.0.0.1", "9221", "1")
		w.ok("a", "set", "{t0}k", "v")
		time.Sleep(time.Minute)
		if strings.Contains(w.slot("a", 1), "lag: 0\r\n") {
			t.Error("the lag became zero")
		}
		w.s["b"].SetLag(0)
		w.synced("a", "b", 1)
	})
}

func TestAddSlotsHoldsData(t *testing.T) {
	inWorld(t, 1, pika.Options{AddSlot: time.Second}, func(w *world) {
		w.s["a"].Do("pkcluster", "delslots", "2-4")
		begun := time.Now()
		c := w.client("a")
		defer c.Close()
		_ = c.Send("pkcluster", "addslots", "2-4")
		time.Sleep(10 * time.Millisecond)
		w.ok("a", "ping")
		if held := time.Since(begun); held > 100*time.Millisecond {
			t.Errorf("PING waited %v", held)
		}
		w.ok("a", "set", "{t0}k", "v")
		if held := time.Since(begun); held < 3*time.Second {
			t.Errorf("a write went through after %v", held)
		}
		_, _ = c.Receive()
	})
}

func TestInterceptSparesNamedClients(t *testing.T) {
	inWorld(t, 1, pika.Options{}, func(w *world) {
		a := w.s["a"]
		a.SetIntercept(func([]string) fault.Action { return fault.Fail("ERR not today") }, "traffic")
		if v := w.do("a", "set", "{t0}k", "v"); v.Str != "ERR not today" {
			t.Errorf("answered %q", v.Str)
		}
		c := w.client("a")
		defer c.Close()
		a.SetIntercept(nil)
		_, _ = c.Do(context.Background(), "client", "setname", "traffic")
		a.SetIntercept(func([]string) fault.Action { return fault.CutAfter() }, "traffic")
		if v, err := c.Do(context.Background(), "set", "{t0}k", "v"); err != nil || v.Str != "OK" {
			t.Errorf("traffic got %v, %v", v, err)
		}
		c2 := w.client("a")
		defer c2.Close()
		if _, err := c2.Do(context.Background(), "set", "{t0}k2", "v"); err == nil {
			t.Error("a cut connection answered")
		}
		if got := a.Writes("traffic"); len(got) != 2 {
			t.Errorf("writes of others than the traffic: %q", got)
		}
		if a.SlotKeys(1) != 2 {
			t.Errorf("%d keys", a.SlotKeys(1))
		}
	})
}

func TestRsyncGreets(t *testing.T) {
	s, err := pika.Start(pika.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	greet := func() string {
		c, err := net.Dial("tcp", s.RsyncAddr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		b, _ := io.ReadAll(c)
		return string(b)
	}
	if got := greet(); got != "@RSYNCD: 31.0\n" {
		t.Errorf("greets %q", got)
	}
	s.Stop()
	if got := greet(); got != "@RSYNCD: 31.0\n" {
		t.Errorf("greets %q after the server has stopped, which leaves it running", got)
	}
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkInfoOf1024Slots(b *testing.B) {
	s, err := pika.Start(pika.Options{Slots: "0-1023"})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	b.ReportAllocs()
	for b.Loop() {
		if v := s.Do("pkcluster", "info", "slot", "0-1023"); len(v.Str) < 1024*80 {
			b.Fatal(v.Str)
		}
	}
}

// BenchmarkWrites has 16 clients over TCP write into the slots of a master with a replica.
func BenchmarkWrites(b *testing.B) {
	network := pika.NewNetwork()
	master, err := pika.Start(pika.Options{Name: "master", Slots: "0-1023", Network: network})
	if err != nil {
		b.Fatal(err)
	}
	defer master.Close()
	replica, err := pika.Start(pika.Options{Name: "replica", Slots: "0-1023", Network: network})
	if err != nil {
		b.Fatal(err)
	}
	defer replica.Close()
	host, port, _ := net.SplitHostPort(master.Announced())
	replica.Do("pkcluster", "slotsslaveof", host, port, "all")
	for !strings.Contains(replica.Do("info", "replication").Str, "role:slave") {
		time.Sleep(time.Millisecond)
	}
	b.ResetTimer()
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			c, err := resp.Dial(context.Background(), master.Addr())
			if err != nil {
				b.Error(err)
				return
			}
			defer c.Close()
			for n := i; n < b.N; n += 16 {
				if _, err := c.Do(context.Background(), "set", fmt.Sprintf("key:%d", n), "value"); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

package codis

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"runbook/internal/simulate/fault"
	"runbook/schema"
	"runbook/steps"
)

// serve gives a client of a server that answers everything by f.
func serve(t *testing.T, a steps.Access, timeout time.Duration, f http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return Open(Config{Addr: schema.Addr(strings.TrimPrefix(s.URL, "http://")), Product: "demo", Timeout: timeout}, a)
}

func TestReadOnlyClientSendsNothingThatChanges(t *testing.T) {
	c := serve(t, steps.ReadOnly, 0, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("sent: %s %s", r.Method, r.URL) })
	ctx := context.Background()
	p := c.Proxy(ProxyModel{AdminAddr: c.Addr(), Token: "t"})
	for what, do := range map[string]func() error{
		"put":       func() error { return c.Put(ctx, "group/create", "3") },
		"assign":    func() error { return c.Assign(ctx, []SlotGroup{{1, 2}}) },
		"fillslots": func() error { return p.FillSlots(ctx, []Slot{{ID: 1}}) },
		"another get": func() error {
			_, err := c.x.do(ctx, request{method: http.MethodGet, addr: c.Addr(), path: "/api/topom/reload/" + maskedXAuth})
			return err
		},
	} {
		err := do()
		if e := steps.Classify(err); e == nil || e.Kind != "refused-write" || e.Unknown || !errors.As(err, new(*RefusedError)) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestRequestWithoutAnAnswer(t *testing.T) {
	gone := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().String()
	}()
	arrived := make(chan struct{}, 1)
	hang := func(_ http.ResponseWriter, r *http.Request) {
		select {
		case arrived <- struct{}{}:
		default:
		}
		<-r.Context().Done()
	}
	cut := func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }
	half := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = w.Write([]byte(`"O`))
	}
	stops := errors.New("the operator stops the run")
	for _, test := range []struct {
		name      string
		client    *Client
		stop      bool
		kind      string
		unknown   bool // of a PUT
		temporary bool
	}{
		{"nobody listens", Open(Config{Addr: schema.Addr(gone), Product: "demo"}, steps.ReadWrite), false, "refused", false, true},
		{"no answer in time", serve(t, steps.ReadWrite, 50*time.Millisecond, hang), false, "timeout", true, true},
		{"cut before an answer", serve(t, steps.ReadWrite, 0, cut), false, "closed", true, true},
		{"cut within the answer", serve(t, steps.ReadWrite, 0, half), false, "closed", true, true},
		{"stopped by the run", serve(t, steps.ReadWrite, 0, hang), true, "canceled", true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, call := range []struct {
				write bool
				do    func(ctx context.Context) error
			}{
				{true, func(ctx context.Context) error { return test.client.Put(ctx, "group/create", "3") }},
				{false, func(ctx context.Context) error { _, err := test.client.Stats(ctx); return err }},
			} {
				ctx, cancel := context.WithCancelCause(context.Background())
				if test.stop {
					for len(arrived) > 0 {
						<-arrived
					}
					go func() { <-arrived; cancel(stops) }()
				}
				err := call.do(ctx)
				cancel(nil)
				e := steps.Classify(err)
				if e == nil || e.Kind != test.kind || e.Unknown != (test.unknown && call.write) || e.Temporary != test.temporary {
					t.Errorf("write %t: %+v", call.write, e)
				}
				if test.stop && !errors.Is(err, stops) {
					t.Errorf("the cause is lost: %v", err)
				}
				if strings.Contains(err.Error(), demo) {
					t.Errorf("the error shows the xauth: %v", err)
				}
			}
		})
	}
}

// A request under a context that has ended is not sent, so its outcome is known.
func TestRequestThatIsNotSent(t *testing.T) {
	c := serve(t, steps.ReadWrite, 0, func(http.ResponseWriter, *http.Request) { t.Error("sent") })
	why := errors.New("the operator stops the run")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(why)
	if e := steps.Classify(c.Put(ctx, "group/create", "3")); e.Unknown || !errors.Is(e, why) {
		t.Errorf("%+v", e)
	}
}

func TestAnswersOfSomebodyElse(t *testing.T) {
	for _, test := range []struct {
		name    string
		answer  http.HandlerFunc
		unknown bool
		words   string
	}{
		{"a page", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html><b>It works!</b></html>")) }, true, "It works!"},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/login", http.StatusFound) }, false, "/login, which is not followed"},
		{"a gateway", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, true, "502"},
		{"an error without a cause", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(800) }, true, "without a cause"},
		{"no HTTP", func(w http.ResponseWriter, _ *http.Request) {
			conn, _, _ := w.(http.Hijacker).Hijack()
			_, _ = conn.Write([]byte("-ERR unknown command 'PUT'\r\n"))
			_ = conn.Close()
		}, true, "not HTTP"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := serve(t, steps.ReadWrite, 0, test.answer)
			e := steps.Classify(c.Put(context.Background(), "group/create", "3"))
			if e == nil || e.Kind != "reply" || e.Unknown != test.unknown || !strings.Contains(e.Error(), test.words) {
				t.Errorf("%+v", e)
			}
		})
	}
}

func TestAnswerThatIsTooLarge(t *testing.T) {
	c := serve(t, steps.ReadOnly, time.Minute, func(w http.ResponseWriter, _ *http.Request) {
		b := []byte(strings.Repeat(" ", 1<<20))
		for range maxBody>>20 + 1 {
			if _, err := w.Write(b); err != nil {
				return
			}
		}
	})
	if _, err := c.Stats(context.Background()); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("%v", err)
	}
}

func TestGzip(t *testing.T) {
	c := serve(t, steps.ReadOnly, 0, func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			t.Error("gzip is not asked for, which makes 6 KB of 125")
		}
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = z.Write([]byte(`{"product_name":"demo","pid":7}`))
		_ = z.Close()
	})
	if m, err := c.Model(context.Background()); err != nil || m.PID != 7 {
		t.Errorf("%+v, %v", m, err)
	}
}

// The dashboard is asked once who it is, and what is sent then carries its xauth alone.
func TestProductIsAskedOnce(t *testing.T) {
	w := newWorld(t)
	c := w.client(steps.ReadWrite)
	for _, id := range []string{"7", "8"} {
		if err := c.Put(t.Context(), "group/create", id); err != nil {
			t.Fatal(err)
		}
	}
	asked := 0
	for _, r := range w.dashboard.Requests() {
		if r.Path == "/topom/model" {
			asked++
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
}

func TestWrongProductAndAuth(t *testing.T) {
	w := newWorld(t)
	other := Open(Config{Addr: schema.Addr(w.dashboard.Addr()), Product: "other"}, steps.ReadWrite)
	if e := steps.Classify(other.Put(t.Context(), "group/create", "3")); e == nil || e.Kind != "auth" || e.Unknown || e.Hint == "" {
		t.Errorf("%+v", e)
	}
	noAuth := Open(Config{Addr: schema.Addr(w.dashboard.Addr())}, steps.ReadWrite)
	m := w.stats().Proxy.Models[0]
	if e := steps.Classify(noAuth.Proxy(m).FillSlots(t.Context(), []Slot{})); e == nil || e.Kind != "auth" {
		t.Errorf("%+v", e)
	}
	p := w.client(steps.ReadWrite).Proxy(m)
	slots, err := p.Slots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.FillSlots(t.Context(), slots[:2]); err != nil {
		t.Error(err)
	}
}

// The one request that the mutex never holds up answers while everything else hangs behind a proxy that does not.
func TestModelAnswersWhileTheMutexIsHeld(t *testing.T) {
	w := newWorld(t)
	w.proxies[0].Freeze()
	defer w.proxies[0].Thaw()
	c := Open(Config{Addr: schema.Addr(w.dashboard.Addr()), Timeout: 300 * time.Millisecond}, steps.ReadWrite)
	e := steps.Classify(c.Assign(t.Context(), []SlotGroup{{ID: 1, GroupID: 2}}))
	if e == nil || e.Kind != "timeout" || !e.Unknown {
		t.Fatalf("assign: %+v", e)
	}
	if _, err := c.Stats(t.Context()); steps.Classify(err) == nil || steps.Classify(err).Kind != "timeout" {
		t.Errorf("stats: %v", err)
	}
	if m, err := c.Model(t.Context()); err != nil || m.Product != "demo" {
		t.Errorf("model: %+v, %v", m, err)
	}
}

func TestSlotSurvivesARoundTrip(t *testing.T) {
	raw, err := os.ReadFile(recordings + "slot10-migrating-view.json")
	if err != nil {
		t.Fatal(err)
	}
	var views map[string]json.RawMessage
	if err := json.Unmarshal(raw, &views); err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{
		string(views["proxy /proxy/slots[10]"]),
		`{"id":1,"locked":true,"backend_addr":"127.0.0.1:1","backend_addr_group_id":1,"forward_method":1,"replica_groups":[["127.0.0.1:2"],["127.0.0.1:3"]]}`,
		`{"id":1,"backend_addr":"127.0.0.1:1","a_field":{"of":["a","fork"]},"later":null}`,
		`{"id":0}`,
	} {
		list := "[" + body + "]"
		slots, err := decodeSlots([]byte(list))
		if err != nil {
			t.Fatal(err)
		}
		again, err := json.Marshal(slots)
		if err != nil {
			t.Fatal(err)
		}
		if !sameJSON(t, string(again), list) {
			t.Errorf("%s became %s", list, again)
		}
		if plain := strings.Join(strings.Fields(list), ""); !strings.Contains(body, "later") && string(again) != plain {
			t.Errorf("the order of fields: %s became %s", plain, again)
		}
	}
}

func TestCommandPath(t *testing.T) {
	for _, test := range []struct {
		words []string
		want  string
	}{
		{[]string{"group/create", "9"}, "/api/topom/group/create/<xauth>/9"},
		{[]string{"group", "resync", "3"}, "/api/topom/group/resync/<xauth>/3"},
		{[]string{"slots/action/create", "1", "2"}, "/api/topom/slots/action/create/<xauth>/1/2"},
		{[]string{"slots/action/create-range", "1", "5", "2"}, "/api/topom/slots/action/create-range/<xauth>/1/5/2"},
		{[]string{"slots/assign"}, "/api/topom/slots/assign/<xauth>"},
		{[]string{"slots/assign", "offline"}, "/api/topom/slots/assign/<xauth>/offline"},
		{[]string{"group/create", ""}, ""},
		{[]string{"shutdown"}, ""},
	} {
		got, err := commandPath(test.words...)
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%v: %q, %v", test.words, got, err)
		}
	}
}

// SlotBackends names everybody who may get a request of a slot, whoever says so, and fails where a proxy is silent.
func TestSlotBackends(t *testing.T) {
	w := newWorld(t)
	c := w.client(steps.ReadOnly)
	w.fillSlots(w.proxies[1], Slot{ID: 1, BackendAddr: w.two.addr, MigrateFrom: w.one.addr, ForwardMethod: 1, ReplicaGroups: [][]string{{w.replica.addr}}})
	got, err := c.SlotBackends(t.Context(), schema.Slots{0, 1})
	if err != nil {
		t.Fatal(err)
	}
	all := []string{w.one.addr, w.two.addr, w.replica.addr}
	slices.Sort(all)
	if fmt.Sprint(got) != fmt.Sprint(map[int][]string{0: {w.one.addr}, 1: all}) {
		t.Errorf("%v", got)
	}
	w.proxies[0].SetIntercept(func(string, string, []byte) fault.Action { return fault.CutBefore() }, "dashboard")
	if _, err := c.SlotBackends(t.Context(), schema.Slots{0}); err == nil || !strings.Contains(err.Error(), w.proxies[0].AdminAddr()) {
		t.Errorf("%v", err)
	}
}

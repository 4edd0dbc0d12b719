package observe

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"runbook/runner"
	"runbook/runner/journal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// story is a run as its records tell it.
type story struct {
	t    *testing.T
	cfg  runner.Config
	log  bytes.Buffer
	seq  int64
	time time.Time
}

func newStory(t *testing.T) *story {
	s := &story{t: t, time: time.Date(2026, 11, 22, 2, 0, 0, 0, time.UTC)}
	s.cfg.Log = slog.New(slog.NewTextHandler(&s.log, nil))
	return s
}

func (s *story) tell(typ, step, body string) {
	s.t.Helper()
	if !json.Valid([]byte(body)) {
		s.t.Fatalf("%s is no JSON", body)
	}
	s.seq++
	s.time = s.time.Add(time.Second)
	s.cfg.Observe(journal.Record{Seq: s.seq, Time: s.time, Type: typ, Step: step, Body: json.RawMessage(body)})
}

const started = `{"format":1,"run":"r1","name":"move","plan":"d","operator":"ana","uid":1,"host":"ops1","pid":7,"version":"v","dir":"/","lock":"codis/demo"}`

// events runs a hook on a story and gives what it was told.
func events(t *testing.T, tell func(s *story)) []Event {
	t.Helper()
	file := filepath.Join(t.TempDir(), "events")
	s := newStory(t)
	act := func(words ...string) string { return "runner " + strings.Join(words, " ") }
	f := Start(&s.cfg, NewHook("cat >> "+file, act, os.Environ(), s.cfg.Log))
	tell(s)
	f.Close()
	f.Close() // twice is harmless
	text, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if s.log.Len() > 0 {
		t.Errorf("the log says %s", &s.log)
	}
	var all []Event
	for d := json.NewDecoder(bytes.NewReader(text)); d.More(); {
		var e Event
		if err := d.Decode(&e); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		all = append(all, e)
	}
	return all
}

// TestHookEvents: people are called for what they should hear of, in order, and told what they can type.
func TestHookEvents(t *testing.T) {
	got := events(t, func(s *story) {
		s.tell("run-started", "", started)
		s.tell("step-started", "look", `{"attempt":1,"kind":"check","effect":"read"}`)
		s.tell("step-finished", "look", `{"status":"ok"}`)
		s.tell("gate-opened", "early", `{"message":"answered by a flag"}`)
		s.tell("gate-decided", "early", `{"approved":true,"by":"ana","uid":1,"how":"--approve"}`)
		s.tell("guard-tripped", "", `{"guard":"errors","then":"pause","require":"n < 10","values":{"n":12}}`)
		s.tell("gate-opened", "clean_up", `{"message":"delete?"}`)
		s.tell("run-paused", "", `{"reason":"clean_up waits for an approval"}`)
		s.tell("run-finished", "clean_up", `{"status":"paused"}`)
	})
	want := []string{"guard-tripped", "approval-wanted clean_up", "pause"}
	var names []string
	for _, e := range got {
		names = append(names, strings.TrimSpace(e.Event+" "+e.Step))
		if e.Run != "r1" || e.Name != "move" || e.Operator != "ana" || e.Host != "ops1" || e.Message == "" {
			t.Errorf("%+v", e)
		}
	}
	if !slices.Equal(names, want) {
		t.Fatalf("events %q, want %q", names, want)
	}
	if want := []string{"runner approve r1 clean_up", "runner reject r1 clean_up"}; !slices.Equal(got[1].Commands, want) {
		t.Errorf("commands %q, want %q", got[1].Commands, want)
	}
	if got[2].Message != "clean_up waits for an approval" || !slices.Equal(got[2].Commands, []string{"runner resume r1"}) {
		t.Errorf("%+v", got[2])
	}
}

// TestHookFailure: a failure and the end are told with their cause; a run that is over is not offered to be resumed.
func TestHookFailure(t *testing.T) {
	for status, over := range map[string]bool{"failed": false, "in-doubt": false, "aborted": true, "succeeded": true} {
		got := events(t, func(s *story) {
			s.tell("run-started", "", started)
			s.tell("step-started", "switch", `{"attempt":1,"kind":"codis.switch-slot","effect":"cutover","target":"codis"}`)
			s.tell("step-finished", "switch", `{"status":"failed","error":{"message":"slot 8 is held","kind":"codis"}}`)
			s.tell("run-finished", "switch", `{"status":"`+status+`","error":{"message":"slot 8 is held","kind":"codis"}}`)
		})
		if len(got) != 2 || got[0].Event != "failure" || got[0].Kind != "codis.switch-slot" || got[0].Target != "codis" || got[0].Error != "slot 8 is held" {
			t.Fatalf("%s: %+v", status, got)
		}
		if end := got[1]; end.Event != "end" || end.Status != status || end.Error == "" || (len(end.Commands) == 0) != over {
			t.Errorf("%s: %+v", status, end)
		}
	}
}

// TestHookHarms: a hook that fails, is missing, floods or never ends is a warning; what it started is gone with it.
func TestHookHarms(t *testing.T) {
	for name, c := range map[string]struct{ command, want string }{
		"fails":   {"echo no such room >&2; exit 3", "no such room"},
		"missing": {"/nowhere/page-me", "not found"},
		"floods":  {"head -c 3000000 /dev/zero | tr '\\0' x; exit 1", "xxxx"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t)
			f := Start(&s.cfg, NewHook(c.command, func(...string) string { return "" }, os.Environ(), s.cfg.Log))
			s.tell("run-started", "", started)
			s.tell("run-finished", "", `{"status":"succeeded"}`)
			f.Close()
			if !strings.Contains(s.log.String(), "event hook failed") || !strings.Contains(s.log.String(), c.want) {
				t.Errorf("the log says %.500s", &s.log)
			}
			if s.log.Len() > 2*hookSays {
				t.Errorf("the log has %d bytes of it", s.log.Len())
			}
		})
	}
	t.Run("hangs", func(t *testing.T) {
		h := NewHook("sleep 1000 & sleep 1000", func(...string) string { return "" }, os.Environ(), slog.New(slog.DiscardHandler))
		for range hookQueue + 10 { // one is under way, the queue is full, the rest is dropped
			h.put(Event{Event: RunEnd})
		}
		if h.dropped == 0 {
			t.Error("a queue without an end")
		}
		h.cancel() // as its time limit does
		h.Close()
	})
}

// TestHookWithoutEnvironment: a hook gets the environment it is given and no other.
func TestHookWithoutEnvironment(t *testing.T) {
	t.Setenv("PIKA_PASSWORD", "pw-secret")
	s := newStory(t)
	out := filepath.Join(t.TempDir(), "env")
	f := Start(&s.cfg, NewHook("env > "+out, func(...string) string { return "" }, []string{"PATH=" + os.Getenv("PATH")}, s.cfg.Log))
	s.tell("run-started", "", started)
	s.tell("run-finished", "", `{"status":"succeeded"}`)
	f.Close()
	if text, err := os.ReadFile(out); err != nil || bytes.Contains(text, []byte("pw-secret")) {
		t.Errorf("%v\n%s", err, text)
	}
}

func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get("http://" + m.Addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// until scrapes until everything that is wanted is there.
func until(t *testing.T, m *Metrics, want ...string) (text string) {
	t.Helper()
	missing := ""
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		text, missing = scrape(t, m), ""
		for _, w := range want {
			if !strings.Contains(text, w) {
				missing += "\n" + w
			}
		}
		if missing == "" {
			return text
		}
	}
	t.Fatalf("not there:%s\nin\n%s", missing, text)
	return ""
}

// TestMetrics: what is scraped in the middle of a run is how the run stands; a wait's labels go with it.
func TestMetrics(t *testing.T) {
	s := newStory(t)
	m, err := ServeMetrics("127.0.0.1:0", "v1", runner.PlanSummary{Reads: 2, Writes: 1}, s.cfg.Log)
	if err != nil {
		t.Fatal(err)
	}
	f := Start(&s.cfg, m)
	s.tell("run-started", "", started)
	s.tell("step-started", "move", `{"attempt":1}`)
	s.tell("step-started", "move/caught_up", `{"attempt":1,"kind":"pika.slot-info","effect":"read","waiting":"lag == 0"}`)
	s.tell("step-retrying", "move/caught_up", `{"attempt":1,"error":{"message":"x","kind":"y"},"delay":"1s"}`)
	s.tell("step-observed", "move/caught_up", `{"holds":false,"values":{"lag":4096,"offset":"1 2","behind":"1.5s"}}`)
	s.tell("gate-opened", "clean_up", `{"message":"delete?"}`)
	s.tell("guard-observed", "", `{"guard":"errors","require":"n < 10","holds":true}`)
	text := until(t, m,
		`runner_build_info{version="v1"} 1`, `runner_run_info{host="ops1",name="move",operator="ana",run="r1",sandbox="false"} 1`,
		`runner_run_status{status="running"} 1`, `runner_steps{state="running"} 1`, `runner_steps_planned{effect="read"} 2`, `runner_step_retries 1`,
		`runner_wait_value{step="move/caught_up",value="lag"} 4096`, `runner_wait_value{step="move/caught_up",value="behind"} 1.5`, `runner_wait_holds{step="move/caught_up"} 0`,
		`runner_gates_open 1`, `runner_guard_holds{guard="errors"} 1`, `runner_lock_held{lock="codis/demo"} 1`, `runner_journal_records_total{type="step-started"} 2`, "runner_run_age_seconds ")
	if strings.Contains(text, `value="offset"`) {
		t.Error("a text is shown as a number")
	}
	s.tell("step-finished", "move/caught_up", `{"status":"ok","duration":"3s"}`)
	s.tell("gate-decided", "clean_up", `{"approved":true,"by":"ben","uid":2,"how":"prompt"}`)
	s.tell("run-finished", "", `{"status":"succeeded"}`)
	text = until(t, m, `runner_steps{state="ok"} 1`, `runner_steps{state="running"} 0`, `runner_gates_open 0`, `runner_run_status{status="succeeded"} 1`, `runner_step_duration_seconds_sum{effect="read"} 3`)
	if strings.Contains(text, "runner_wait_") && strings.Contains(text, "caught_up") {
		t.Error("a wait that is over is still shown")
	}
	f.Close()
	if _, err := net.Dial("tcp", m.Addr); err == nil {
		t.Error("metrics are served after the end")
	}
}

// TestMetricsAddress: where it is served is on loopback unless told otherwise, and a port that is taken is an error at once.
func TestMetricsAddress(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	m, err := ServeMetrics(":0", "v", runner.PlanSummary{}, log)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if !strings.HasPrefix(m.Addr, "127.0.0.1:") {
		t.Errorf("served at %s", m.Addr)
	}
	for _, addr := range []string{m.Addr, "9100", "127.0.0.1:http-of-nobody"} {
		if other, err := ServeMetrics(addr, "v", runner.PlanSummary{}, log); err == nil {
			other.Close()
			t.Errorf("%s is taken", addr)
		}
	}
}

// catcher is a collector.
type catcher struct {
	mu    sync.Mutex
	spans map[string]*spans.Span
	about string
}

func (c *catcher) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var req collector.ExportTraceServiceRequest
	if err := proto.Unmarshal(body, &req); err != nil || r.URL.Path != "/v1/traces" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rs := range req.ResourceSpans {
		c.about = fmt.Sprint(rs.Resource)
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				c.spans[s.Name] = s
			}
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func traced(t *testing.T, s *story, tell func()) *catcher {
	t.Helper()
	c := &catcher{spans: map[string]*spans.Span{}}
	server := httptest.NewServer(c)
	defer server.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=staging")
	tr, err := StartTrace(os.Getenv, "v1", s.cfg.Log)
	if err != nil || tr == nil {
		t.Fatal(tr, err)
	}
	f := Start(&s.cfg, tr)
	tell()
	f.Close()
	return c
}

// TestTrace: a collector sees the run, its groups and steps inside one another, with their times and errors.
func TestTrace(t *testing.T) {
	s := newStory(t)
	c := traced(t, s, func() {
		s.tell("run-started", "", started)
		s.tell("step-started", "move", `{"attempt":1}`)
		s.tell("step-started", "move/switch[slot=7]", `{"attempt":1,"kind":"codis.switch-slot","effect":"cutover","target":"codis","addr":"127.0.0.1:18080"}`)
		s.tell("step-retrying", "move/switch[slot=7]", `{"attempt":1,"error":{"message":"held","kind":"y"},"delay":"1s"}`)
		s.tell("step-started", "move/switch[slot=7]", `{"attempt":2,"kind":"codis.switch-slot","effect":"cutover","target":"codis"}`)
		s.tell("step-finished", "move/switch[slot=7]", `{"status":"failed","attempts":2,"error":{"message":"still held","kind":"y"}}`)
		s.tell("run-finished", "move/switch[slot=7]", `{"status":"failed","error":{"message":"still held","kind":"y"}}`)
	})
	run, group, step := c.spans["run move"], c.spans["move"], c.spans["move/switch[slot=7]"]
	if run == nil || group == nil || step == nil {
		t.Fatalf("spans %v; the log says %s", c.spans, &s.log)
	}
	if !bytes.Equal(group.ParentSpanId, run.SpanId) || !bytes.Equal(step.ParentSpanId, group.SpanId) || !bytes.Equal(step.TraceId, run.TraceId) {
		t.Error("spans do not lie in one another")
	}
	if step.Status.GetMessage() != "still held" || len(step.Events) != 1 || step.EndTimeUnixNano-step.StartTimeUnixNano != uint64(3*time.Second) {
		t.Errorf("%v", step)
	}
	if !strings.Contains(c.about, "staging") || !strings.Contains(c.about, `"runner"`) {
		t.Errorf("resource %s", c.about)
	}
	again := newStory(t)
	c = traced(t, again, func() {
		again.tell("run-resumed", "", started)
		again.tell("run-finished", "", `{"status":"succeeded"}`)
	})
	if !bytes.Equal(c.spans["run move"].TraceId, run.TraceId) {
		t.Error("a resume is in another trace")
	}
	t.Setenv("TRACEPARENT", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	within := newStory(t)
	c = traced(t, within, func() { within.tell("run-started", "", started) })
	if got := fmt.Sprintf("%x %x", c.spans["run move"].TraceId, c.spans["run move"].ParentSpanId); got != "0af7651916cd43dd8448eb211c80319c b7ad6b7169203331" {
		t.Errorf("trace and parent %s", got)
	}
}

// TestTraceEnvironment: nothing is sent unless the environment asks for it, and what cannot be done is said.
func TestTraceEnvironment(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	for text, want := range map[string]string{
		"": "", "OTEL_TRACES_EXPORTER=none OTEL_EXPORTER_OTLP_ENDPOINT=http://x": "", "OTEL_SDK_DISABLED=true OTEL_EXPORTER_OTLP_ENDPOINT=http://x": "",
		"OTEL_TRACES_EXPORTER=zipkin OTEL_EXPORTER_OTLP_ENDPOINT=http://x": "zipkin", "OTEL_EXPORTER_OTLP_ENDPOINT=http://x OTEL_EXPORTER_OTLP_PROTOCOL=grpc": "4318",
	} {
		environ := func(name string) string {
			for _, e := range strings.Fields(text) {
				if v, ok := strings.CutPrefix(e, name+"="); ok {
					return v
				}
			}
			return ""
		}
		tr, err := StartTrace(environ, "v", log)
		if tr != nil || (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v", text, tr, err)
		}
	}
}

// TestUnreachableCollector: it costs a run at most the time of one flush, and one line of the log.
func TestUnreachableCollector(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+l.Addr().String())
	_ = l.Close()
	s := newStory(t)
	tr, err := StartTrace(os.Getenv, "v", s.cfg.Log)
	if err != nil {
		t.Fatal(err)
	}
	f := Start(&s.cfg, tr)
	s.tell("run-started", "", started)
	s.tell("run-finished", "", `{"status":"succeeded"}`)
	f.Close()
	if n := strings.Count(s.log.String(), "traces are not taken"); n > 1 {
		t.Errorf("said %d times", n)
	}
}

// TestPastIsNotTold: what earlier processes recorded makes the state, not events.
func TestPastIsNotTold(t *testing.T) {
	got := events(t, func(s *story) {
		s.cfg.Recall([]journal.Record{
			{Seq: 1, Type: "run-started", Body: json.RawMessage(started)},
			{Seq: 2, Type: "gate-opened", Step: "old", Body: json.RawMessage(`{"message":"m"}`)},
			{Seq: 3, Type: "run-paused", Body: json.RawMessage(`{"reason":"old"}`)},
		})
		s.tell("run-resumed", "", started)
		s.tell("run-finished", "", `{"status":"succeeded"}`)
	})
	if len(got) != 1 || got[0].Event != "end" {
		t.Errorf("%+v", got)
	}
}

// TestMetricsPage: the page names every metric, and no other.
func TestMetricsPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/observing.md")
	if err != nil {
		t.Fatal(err)
	}
	s := newStory(t)
	m, err := ServeMetrics("127.0.0.1:0", "v", runner.PlanSummary{}, s.cfg.Log)
	if err != nil {
		t.Fatal(err)
	}
	f := Start(&s.cfg, m)
	defer f.Close()
	s.tell("run-started", "", started)
	s.tell("step-started", "a", `{"attempt":1,"kind":"check","effect":"read"}`)
	s.tell("guard-observed", "", `{"guard":"errors","require":"n < 10","holds":true}`)
	s.tell("step-finished", "a", `{"status":"ok","duration":"1s"}`)
	s.tell("step-observed", "b", `{"holds":false,"values":{"lag":1}}`)
	text := until(t, m, "runner_wait_value{")
	var served, told []string
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			served = append(served, strings.Fields(rest)[0])
		}
	}
	for line := range strings.Lines(string(page)) {
		if rest, ok := strings.CutPrefix(line, "| `runner_"); ok {
			name, _, _ := strings.Cut(rest, "`")
			told = append(told, "runner_"+name)
		}
	}
	slices.Sort(told)
	slices.Sort(served)
	if !slices.Equal(served, told) {
		t.Errorf("served %q\ntold   %q", served, told)
	}
}

// TestCollectorEnvironment: headers and compression are as asked, and a collector that is busy is asked again.
func TestCollectorEnvironment(t *testing.T) {
	var mu sync.Mutex
	var got []http.Header
	inner := &catcher{spans: map[string]*spans.Span{}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		got = append(got, r.Header)
		first := len(got) == 1
		mu.Unlock()
		if first {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		body, err := gzip.NewReader(r.Body)
		if err != nil {
			t.Error(err)
			return
		}
		r.Body, r.URL.Path = body, "/v1/traces"
		inner.ServeHTTP(w, r)
	}))
	defer server.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", server.URL+"/ingest")
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=storage%20team")
	t.Setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
	s := newStory(t)
	tr, err := StartTrace(os.Getenv, "v1", s.cfg.Log)
	if err != nil {
		t.Fatal(err)
	}
	f := Start(&s.cfg, tr)
	s.tell("run-started", "", started)
	s.tell("run-finished", "", `{"status":"succeeded"}`)
	f.Close()
	if len(got) != 2 || got[0].Get("X-Tenant") != "storage team" || inner.spans["run move"] == nil {
		t.Errorf("requests %v, spans %v; the log says %s", got, inner.spans, &s.log)
	}
}

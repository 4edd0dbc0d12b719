package core_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	osexec "os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"runbook/schema"
	"runbook/steps"
	"runbook/steps/conformance"
	"runbook/steps/core"
	"runbook/steps/host"
	"runbook/steps/host/hosttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func kind(t testing.TB, name string) *steps.Definition {
	t.Helper()
	for _, d := range core.Kinds() {
		if d.Name == name {
			return d
		}
	}
	t.Fatalf("no kind %s", name)
	return nil
}

func local() map[string]conformance.Target {
	return map[string]conformance.Target{"h": {Kind: host.Target().Define(), Config: map[string]any{"local": true}}}
}

func nothing() string { return "" }

// run carries a kind out on the runner's machine, as an engine does.
func run(t testing.TB, name string, with map[string]any) (out any, lines []steps.Line, err error) {
	t.Helper()
	def := kind(t, name)
	env := conformance.NewEnv(conformance.World{Targets: local(), With: with})
	t.Cleanup(func() { _ = env.Close() })
	in := reflect.New(def.In).Interface()
	if err := schema.Bind(with, in); err != nil {
		t.Fatal(err)
	}
	if p := def.Valid(in, func(string) bool { return false }); len(p) > 0 {
		t.Fatal(p)
	}
	if def.HasPlan {
		c, err := def.Plan(t.Context(), nil, in)
		if err != nil {
			t.Fatal(err)
		}
		lines = c.Lines
	}
	if def.HasRead {
		out, err = def.Read(t.Context(), steps.NewView(env), in)
		return out, lines, err
	}
	out, err = def.Apply(t.Context(), steps.NewSession(env), in)
	return out, lines, err
}

func field(t *testing.T, out any, name string) any {
	t.Helper()
	return reflect.ValueOf(out).FieldByName(name).Interface()
}

func TestEngineKindsConform(t *testing.T) {
	for _, name := range []string{"set", "sleep", "approve", "stop-background"} {
		t.Run(name, func(t *testing.T) { conformance.Run(t, kind(t, name), conformance.Fixture{}) })
	}
}

func TestExecConforms(t *testing.T) {
	world := func(t *testing.T, targets map[string]conformance.Target) conformance.World {
		file := filepath.Join(t.TempDir(), "f")
		return conformance.World{
			Targets: targets, Target: "h", Wall: true, Secrets: []string{"s3cr3t"},
			With: map[string]any{"shell": `[ -n "$TOKEN" ] && [ -s "$KEY" ] && echo x >>` + file, "env": map[string]any{"TOKEN": "s3cr3t"}, "secret_files": map[string]any{"KEY": "s3cr3t"}},
			Snapshot: func() string {
				b, _ := os.ReadFile(file)
				return string(b)
			},
		}
	}
	t.Run("local", func(t *testing.T) {
		conformance.Run(t, kind(t, "exec"), conformance.Fixture{New: func(t *testing.T) conformance.World {
			faults := &hosttest.Faults{}
			w := world(t, map[string]conformance.Target{"h": {Kind: faults.Target(), Config: map[string]any{"local": true}}})
			w.Intercept, w.Writes = faults.Intercept, faults.Writes
			return w
		}})
	})
	t.Run("ssh", func(t *testing.T) {
		c := hosttest.Start(t).Config
		conformance.Run(t, kind(t, "exec"), conformance.Fixture{New: func(t *testing.T) conformance.World {
			return world(t, map[string]conformance.Target{"h": {Kind: host.Target().Define(),
				Config: map[string]any{"addr": c.Addr, "user": c.User, "identity": c.Identity, "known_hosts": c.KnownHosts}}})
		}})
	})
}

func TestExec(t *testing.T) {
	tests := []struct {
		name  string
		with  map[string]any
		check func(t *testing.T, out any, err error)
	}{
		{"output loses one newline", map[string]any{"command": []any{"printf", `a\n\n`}}, func(t *testing.T, out any, err error) {
			if err != nil || field(t, out, "Stdout") != "a\n" || field(t, out, "ExitCode") != 0 || field(t, out, "Value") != nil {
				t.Errorf("%+v, %v", out, err)
			}
		}},
		{"lines", map[string]any{"shell": `printf 'a\n\nb c'`, "parse": "lines"}, func(t *testing.T, out any, err error) {
			if err != nil || !reflect.DeepEqual(field(t, out, "Value"), []any{"a", "b c"}) {
				t.Errorf("%+v, %v", out, err)
			}
		}},
		{"json", map[string]any{"shell": `echo '{"n": 12345678901234567, "l": [1.5]}'`, "parse": "json"}, func(t *testing.T, out any, err error) {
			if err != nil || fmt.Sprint(field(t, out, "Value")) != "map[l:[1.5] n:12345678901234567]" {
				t.Errorf("%+v, %v", out, err)
			}
		}},
		{"no json", map[string]any{"shell": `echo '{} x'`, "parse": "json"}, fails("reply", "stdout is no JSON", false)},
		{"code", map[string]any{"shell": `echo one >&2; echo two >&2; exit 3`}, fails("exit", "exit code 3: one | two", false)},
		{"code that is ok", map[string]any{"shell": `exit 3`, "ok_codes": []any{3}}, func(t *testing.T, out any, err error) {
			if err != nil || field(t, out, "ExitCode") != 3 {
				t.Errorf("%+v, %v", out, err)
			}
		}},
		{"signal", map[string]any{"shell": `kill -TERM $$`}, fails("signal", "ended by SIGTERM", true)},
		{"absent", map[string]any{"command": []any{"no-such-command-x"}}, fails("not-found", "no-such-command-x", false)},
		{"not UTF-8", map[string]any{"command": []any{"printf", `\377`}}, func(t *testing.T, out any, err error) {
			if err != nil || field(t, out, "Stdout") != "\uFFFD" {
				t.Errorf("%+v, %v", out, err)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, _, err := run(t, "exec", tt.with)
			tt.check(t, out, err)
		})
	}
}

func fails(kind, message string, unknown bool) func(*testing.T, any, error) {
	return func(t *testing.T, _ any, err error) {
		t.Helper()
		if e := steps.Classify(err); e == nil || e.Kind != kind || e.Unknown != unknown || !strings.Contains(err.Error(), message) {
			t.Errorf("got %#v (%v), want kind %s with %q", e, err, kind, message)
		}
	}
}

func TestExecValid(t *testing.T) {
	def := kind(t, "exec")
	for message, with := range map[string]map[string]any{
		"needs command":        {},
		"not both":             {"command": []any{"a"}, "shell": "a"},
		"not a command line":   {"command": []any{"echo hello"}},
		"no name of an":        {"shell": "a", "env": map[string]any{"A-B": "x"}},
		"env and secret_files": {"shell": "a", "env": map[string]any{"A": "x"}, "secret_files": map[string]any{"A": "x"}},
		"0 to 255":             {"shell": "a", "ok_codes": []any{256}},
	} {
		in := reflect.New(def.In).Interface()
		if err := schema.Bind(with, in); err != nil {
			t.Fatal(err)
		}
		if p := def.Valid(in, func(string) bool { return false }); len(p) != 1 || !strings.Contains(p[0].Message, message) {
			t.Errorf("%v: %v, want %q", with, p, message)
		}
	}
}

func TestHTTPConforms(t *testing.T) {
	var calls atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		_, _ = io.WriteString(w, `{"ok": true}`)
	}))
	defer s.Close()
	conformance.Run(t, kind(t, "http"), conformance.Fixture{New: func(t *testing.T) conformance.World {
		before := calls.Load()
		return conformance.World{
			Targets: local(), Target: "h", Wall: true, Secrets: []string{"s3cr3t"},
			With:     map[string]any{"method": "POST", "url": s.URL, "headers": map[string]any{"Authorization": "s3cr3t"}, "json": map[string]any{"pass": "s3cr3t"}},
			Snapshot: func() string { return fmt.Sprint(calls.Load() - before) },
		}
	}})
}

func TestHTTP(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Method", r.Method)
		_, _ = fmt.Fprintf(w, `{"type": %q, "body": %q}`, r.Header.Get("Content-Type"), b)
	})
	mux.HandleFunc("/code/{code}", func(w http.ResponseWriter, r *http.Request) {
		var code int
		_, _ = fmt.Sscan(r.PathValue("code"), &code)
		w.WriteHeader(code)
		_, _ = io.WriteString(w, "because")
	})
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/echo", http.StatusFound) })
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 5000)) })
	mux.HandleFunc("/cut", func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_ = c.Close()
		}
	})
	s := httptest.NewServer(mux)
	defer s.Close()
	tls := httptest.NewTLSServer(mux)
	defer tls.Close()
	tls.Config.ErrorLog = log.New(io.Discard, "", 0)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()

	get := func(path string, more ...any) map[string]any {
		with := map[string]any{"url": s.URL + path}
		for i := 0; i < len(more); i += 2 {
			with[more[i].(string)] = more[i+1]
		}
		return with
	}
	type want struct {
		kind               string
		temporary, unknown bool
		status             int
		body               string
	}
	tests := []struct {
		name string
		with map[string]any
		want want
	}{
		{"get", get("/echo"), want{status: 200, body: `{"type": "", "body": ""}`}},
		{"json", get("/echo", "method", "PUT", "json", map[string]any{"a": 1}), want{status: 200, body: `{"type": "application/json", "body": "{\"a\":1}"}`}},
		{"a read follows", get("/away"), want{status: 200, body: `{"type": "", "body": ""}`}},
		{"a write does not", get("/away", "method", "POST"), want{kind: "status", status: 302}},
		{"ok code", get("/code/404", "ok_codes", []any{404}), want{status: 404, body: "because"}},
		{"not found", get("/code/404"), want{kind: "not-found", status: 404}},
		{"busy", get("/code/429"), want{kind: "status", temporary: true, status: 429}},
		{"error", get("/code/500", "method", "POST"), want{kind: "status", temporary: true, status: 500}},
		{"gateway, of a read", get("/code/504"), want{kind: "status", temporary: true, status: 504}},
		{"gateway, of a write", get("/code/504", "method", "POST"), want{kind: "status", temporary: true, unknown: true, status: 504}},
		{"no answer to a read", get("/cut"), want{kind: "closed", temporary: true}},
		{"no answer to a write", get("/cut", "method", "DELETE"), want{kind: "closed", temporary: true, unknown: true}},
		{"refused", map[string]any{"url": "http://" + closed.Addr().String(), "method": "POST"}, want{kind: "refused", temporary: true}},
		{"certificate", map[string]any{"url": tls.URL, "method": "POST"}, want{kind: "tls"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, _, err := run(t, "http", tt.with)
			got := want{status: field(t, out, "Status").(int)}
			if e := steps.Classify(err); e != nil {
				got.kind, got.temporary, got.unknown = e.Kind, e.Temporary, e.Unknown
			} else {
				got.body = field(t, out, "Body").(string)
			}
			if got != tt.want {
				t.Errorf("got  %+v (%v)\nwant %+v", got, err, tt.want)
			}
		})
	}
	out, _, err := run(t, "http", get("/large", "max_body", 100))
	if err != nil || len(field(t, out, "Body").(string)) != 100 || field(t, out, "Truncated") != true || field(t, out, "JSON") != nil {
		t.Errorf("%+v, %v", out, err)
	}
	def := kind(t, "http")
	zero := reflect.New(def.In).Interface()
	if def.EffectOf(zero) != steps.Write {
		t.Error("what is not known counts as a write")
	}
}

// A request that went out and is not answered in time may have been carried out.
func TestHTTPTimeout(t *testing.T) {
	release := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer s.Close()
	defer close(release)
	def := kind(t, "http")
	for _, verb := range []string{"GET", "POST"} {
		in := reflect.New(def.In).Interface()
		if err := schema.Bind(map[string]any{"url": s.URL, "method": verb}, in); err != nil {
			t.Fatal(err)
		}
		env := conformance.NewEnv(conformance.World{Targets: local()})
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		_, err := def.Apply(ctx, steps.NewSession(env), in)
		cancel()
		_ = env.Close()
		if e := steps.Classify(err); e == nil || e.Kind != "timeout" || e.Unknown != (verb == "POST") {
			t.Errorf("%s: %#v", verb, e)
		}
	}
}

func TestCheck(t *testing.T) {
	that := []any{
		schema.Condition{Text: "a == 1", Holds: true},
		schema.Condition{Text: "lag < 10", Parts: []schema.ConditionPart{{Text: "lag", Value: 12}}},
		schema.Condition{Text: "x > 1", Message: "x is too small", Unknown: "x is null", Parts: []schema.ConditionPart{{Text: "x", Value: nil}}},
	}
	_, _, err := run(t, "check", map[string]any{"that": that})
	want := "2 of 3 conditions do not hold:\n  lag < 10 (lag is 12)\n  x is too small: x > 1 cannot be told: x is null (x is null)"
	if e := steps.Classify(err); e == nil || e.Kind != "check" || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	conformance.Run(t, kind(t, "check"), conformance.Fixture{New: func(*testing.T) conformance.World {
		return conformance.World{With: map[string]any{"that": that[:1]}, Snapshot: nothing}
	}})
}

func TestNotify(t *testing.T) {
	said := make(chan string, 2)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(bufio.NewReader(r.Body))
		said <- r.Method + " " + r.URL.Path + " " + string(b)
	}))
	out, lines, err := run(t, "notify", map[string]any{"url": s.URL + "/hook/t0ken", "text": "hello"})
	if err != nil || field(t, out, "Sent") != true || <-said != `POST /hook/t0ken {"text":"hello"}` {
		t.Errorf("%+v, %v", out, err)
	}
	if strings.Contains(lines[0].String(), "t0ken") {
		t.Errorf("the plan shows the hook's path: %s", lines[0])
	}
	s.Close()
	out, _, err = run(t, "notify", map[string]any{"url": s.URL + "/hook/t0ken", "text": "hello"})
	if problem := field(t, out, "Problem").(string); err != nil || field(t, out, "Sent") != false || problem == "" || strings.Contains(problem, "t0ken") {
		t.Errorf("%+v, %v", out, err)
	}
	_, _, err = run(t, "notify", map[string]any{"url": s.URL + "/hook/t0ken", "text": "hello", "required": true})
	if e := steps.Classify(err); e == nil || e.Kind != "refused" || strings.Contains(err.Error(), "t0ken") {
		t.Errorf("%#v", e)
	}
	file := filepath.Join(t.TempDir(), "f")
	if _, _, err := run(t, "notify", map[string]any{"command": []any{"tee", file}, "text": "hello"}); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestNotifyIsSaidAgainAfterACrash(t *testing.T) {
	def := kind(t, "notify")
	state, _, err := def.Probe(t.Context(), steps.NewView(conformance.NewEnv(conformance.World{})), reflect.New(def.In).Interface())
	if err != nil || state != steps.Untouched || !def.Idempotent {
		t.Errorf("%s, %v", state, err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("stop")
	cancel(why)
	in := reflect.New(def.In).Interface()
	if err := schema.Bind(map[string]any{"command": []any{"true"}, "text": "x"}, in); err != nil {
		t.Fatal(err)
	}
	env := conformance.NewEnv(conformance.World{Targets: local()})
	defer func() { _ = env.Close() }()
	if _, err := def.Apply(ctx, steps.NewSession(env), in); !errors.Is(err, why) {
		t.Errorf("a cancelled one: %v", err)
	}
}

func BenchmarkExecStep(b *testing.B) {
	def := kind(b, "exec")
	in := reflect.New(def.In).Interface()
	if err := schema.Bind(map[string]any{"command": []any{"/bin/true"}}, in); err != nil {
		b.Fatal(err)
	}
	env := conformance.NewEnv(conformance.World{Targets: local()})
	defer func() { _ = env.Close() }()
	b.Run("step", func(b *testing.B) {
		for b.Loop() {
			if _, err := def.Apply(b.Context(), steps.NewSession(env), in); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("bare", func(b *testing.B) {
		for b.Loop() {
			if err := osexec.Command("/bin/true").Run(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

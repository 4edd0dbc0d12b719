package codis

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"strings"
	"testing"

	"runbook/schema"
	"runbook/steps"
)

// recording is one exchange with the real programs.
type recording struct {
	Name        string          `json:"name"`
	Host        string          `json:"host"`
	Method      string          `json:"method"`
	Path        string          `json:"path"`
	RequestBody json.RawMessage `json:"request_body"`
	Status      int             `json:"status"`
	ContentType string          `json:"content_type"`
	Location    string          `json:"location"`
	Body        json.RawMessage `json:"response_body"`
}

const recordings = "../../testdata/recordings/codis/"

func recorded(t *testing.T) []recording {
	t.Helper()
	f, err := os.Open(recordings + "api.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []recording
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r recording
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatalf("line %d: %v", len(all)+1, err)
		}
		all = append(all, r)
	}
	if len(all) != 185 {
		t.Fatalf("%d recordings", len(all))
	}
	return all
}

// body is the answer as it went over the wire: JSON, or a text as such. What was cut
// where it was recorded is left out.
func (r recording) body(t *testing.T) []byte {
	t.Helper()
	var text string
	if json.Unmarshal(r.Body, &text) == nil && !strings.HasPrefix(r.ContentType, "application/json") {
		return []byte(text)
	}
	var v any
	if err := json.Unmarshal(r.Body, &v); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(uncut(v))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func uncut(v any) any {
	switch v := v.(type) {
	case []any:
		list := []any{}
		for _, e := range v {
			if s, ok := e.(string); !ok || !strings.HasPrefix(s, "...") {
				list = append(list, uncut(e))
			}
		}
		return list
	case map[string]any:
		delete(v, "...")
		for k := range v {
			v[k] = uncut(v[k])
		}
	}
	return v
}

// replay serves one recording, and tells what was asked.
func replay(t *testing.T, r recording) (addr string, asked func() (method, path, body string)) {
	t.Helper()
	var method, path, body string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		b, _ := io.ReadAll(q.Body)
		method, path, body = q.Method, q.URL.RequestURI(), string(b)
		w.Header().Set("Content-Type", r.ContentType)
		if r.Location != "" {
			w.Header().Set("Location", r.Location)
		}
		w.WriteHeader(r.Status)
		_, _ = w.Write(r.body(t))
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://"), func() (string, string, string) { return method, path, body }
}

// the xauth of the recorded product, and that of its first proxy.
const (
	demo      = "c32db19baf104a834a2d07a99c55a19a"
	demoProxy = "10064daa436b6200d0ff02e7a0ed6d01"
)

// TestRecordings asks for every exchange again: what is sent is what was sent, and what
// comes back becomes typed values, or an error with the right words and class.
func TestRecordings(t *testing.T) {
	for _, r := range recorded(t) {
		if path, part, _ := strings.Cut(r.Path, "#"); part == "slots[0]" { // that part of the answer was kept
			r.Path, r.Body = path, json.RawMessage(`{"slots":[`+string(r.Body)+`]}`)
		}
		t.Run(r.Name, func(t *testing.T) {
			addr, asked := replay(t, r)
			c := Open(Config{Addr: schema.Addr(addr), Product: "demo"}, steps.ReadWrite)
			p := c.Proxy(ProxyModel{AdminAddr: addr, Token: "990f169688b7668b7a6ab37e3f891bf3"})
			got, err := r.ask(t, c, p)
			method, path, body := asked()
			if method != r.Method || path != r.Path {
				t.Errorf("asked %s %s, recorded %s %s", method, path, r.Method, r.Path)
			}
			if s, ok := r.sent(); ok && !sameJSON(t, body, s) {
				t.Errorf("sent %s, recorded %s", body, s)
			}
			r.verify(t, got, err)
		})
	}
}

// sent is the body that this package would send too; Codis was also sent some that are wrong on purpose.
func (r recording) sent() (string, bool) {
	var slots []Slot
	var groups []SlotGroup
	switch {
	case strings.Contains(r.Path, "/fillslots/") && json.Unmarshal(r.RequestBody, &slots) == nil,
		strings.HasSuffix(r.Path, "/slots/assign/"+demo) && strictly(r.RequestBody, &groups):
		return string(r.RequestBody), true
	}
	return "", false
}

func strictly(raw []byte, into any) bool {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	return d.Decode(into) == nil && string(raw) != "null" && string(raw) != "[null]"
}

// ask sends the request as this package does, where it does.
func (r recording) ask(t *testing.T, c *Client, p *Proxy) (any, error) {
	ctx := context.Background()
	typed := map[string]func() (any, error){
		"/topom":       func() (any, error) { return c.Overview(ctx) },
		"/topom/model": func() (any, error) { return c.Model(ctx) },
		"/topom/stats": func() (any, error) { return c.Stats(ctx) },
		"/topom/slots": func() (any, error) { return c.Slots(ctx) },
		"/proxy/model": func() (any, error) { return p.Model(ctx) },
		"/proxy/stats": func() (any, error) { return p.Stats(ctx) },
		"/proxy/slots": func() (any, error) { return p.Slots(ctx) },
	}
	if f, ok := typed[r.Path]; ok {
		return f()
	}
	if before, after, ok := strings.Cut(r.Path, "/"+demo); ok && r.Method == http.MethodPut && !strings.Contains(r.Path, "?") {
		words := strings.Split(strings.TrimPrefix(before, "/api/topom/")+after, "/")
		groups := []SlotGroup{}
		if strings.HasSuffix(before, "/assign") && after == "" && strictly(r.RequestBody, &groups) {
			return nil, c.Assign(ctx, groups)
		}
		if _, err := commandPath(words...); err == nil {
			return nil, c.Put(ctx, words...)
		}
	}
	if strings.Contains(r.Path, "/fillslots/"+demoProxy) {
		var slots []Slot
		if err := json.Unmarshal(r.RequestBody, &slots); err != nil {
			t.Fatal(err)
		}
		return nil, p.FillSlots(ctx, slots)
	}
	// a request that this package never makes: its answer is judged all the same
	path, query, _ := strings.Cut(r.Path, "?")
	req := request{method: r.Method, addr: c.Addr(), path: strings.Replace(path, demo, maskedXAuth, 1), xauth: demo}
	if query != "" {
		u := req.url()
		u.RawQuery = query
		q, err := http.NewRequest(r.Method, u.String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		_, err = judge(req, resp, b)
		return nil, err
	}
	_, err := c.x.do(ctx, req)
	return nil, err
}

func (r recording) verify(t *testing.T, got any, err error) {
	var answer struct{ Cause string }
	_ = json.Unmarshal(r.Body, &answer)
	e := steps.Classify(err)
	switch r.Status {
	case 200:
		if err != nil {
			t.Fatal(err)
		}
		if got != nil {
			var want any
			if err := json.Unmarshal(r.body(t), &want); err != nil {
				t.Fatal(err)
			}
			again, err := json.Marshal(got)
			if err != nil {
				t.Fatal(err)
			}
			var have any
			_ = json.Unmarshal(again, &have)
			if _, isSlots := got.([]Slot); isSlots {
				if !reflect.DeepEqual(have, want) {
					t.Errorf("slots do not survive:\nread  %s\nagain %s", r.body(t), again)
				}
			} else if diff := within(have, want, ""); diff != "" {
				t.Error(diff)
			}
		}
		return
	case 800:
		if cause, ok := Cause(err); !ok || cause != hideXAuth(answer.Cause) {
			t.Errorf("the words %q became %v", answer.Cause, err)
		}
	case 404:
		if e == nil || e.Kind != "not-found" || e.Unknown {
			t.Errorf("404 became %+v", e)
		}
	case 500:
		if e == nil || !e.Unknown || !strings.Contains(err.Error(), "PANIC: reflect: call of") || strings.Contains(err.Error(), "<") && !strings.Contains(err.Error(), maskedXAuth) {
			t.Errorf("500 became %v", err)
		}
	default:
		if e == nil || e.Kind != "reply" || e.Unknown {
			t.Errorf("%d became %+v", r.Status, e)
		}
	}
	if e == nil {
		t.Fatal("no error")
	}
	wantUnknown := r.Method == http.MethodPut && (r.Status == 500 || r.unsettled(answer.Cause))
	wantTemporary := strings.Contains(answer.Cause, "not online") || strings.Contains(answer.Cause, "slots-migration is running")
	if e.Unknown != wantUnknown || e.Temporary != wantTemporary {
		t.Errorf("unknown %t, temporary %t: %v", e.Unknown, e.Temporary, err)
	}
	for _, secret := range []string{demo, demoProxy, "2dd2643d777a493a2222d6954f9f4a0a"} {
		if strings.Contains(err.Error()+e.Hint, secret) {
			t.Errorf("the error shows an xauth: %v", err)
		}
	}
}

// unsettled are the recorded failures after which the store or a proxy had changed.
func (r recording) unsettled(cause string) bool {
	return strings.HasSuffix(cause, "resync slots failed") || strings.HasSuffix(cause, "shutdown failed")
}

// within tells where got has something else than want; want may have more.
func within(got, want any, at string) string {
	switch g := got.(type) {
	case map[string]any:
		w, ok := want.(map[string]any)
		if !ok {
			if want == nil {
				return ""
			}
			return at + ": an object was read"
		}
		for k, v := range g {
			if _, ok := w[k]; !ok && !isZero(v) {
				return at + "." + k + ": was read out of nothing"
			} else if ok {
				if d := within(v, w[k], at+"."+k); d != "" {
					return d
				}
			}
		}
	case []any:
		w, ok := want.([]any)
		if !ok || len(w) != len(g) {
			return at + ": another length"
		}
		for i := range g {
			if d := within(g[i], w[i], at+"[]"); d != "" {
				return d
			}
		}
	default:
		if !reflect.DeepEqual(got, want) {
			return at + ": another value"
		}
	}
	return ""
}

func isZero(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case map[string]any:
		for _, e := range v {
			if !isZero(e) {
				return false
			}
		}
		return true
	case []any:
		return len(v) == 0
	}
	return reflect.ValueOf(v).IsZero()
}

func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	var x, y any
	if err := json.Unmarshal([]byte(a), &x); err != nil {
		t.Errorf("%q: %v", a, err)
	}
	if err := json.Unmarshal([]byte(b), &y); err != nil {
		t.Errorf("%q: %v", b, err)
	}
	return reflect.DeepEqual(x, y)
}

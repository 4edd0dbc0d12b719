package codis

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"runbook/internal/simulate/clock"
	"runbook/internal/simulate/resp"
)

// port is the HTTP side of a dashboard or a proxy, over all of its lives: the address, the faults and the log.
type port struct {
	clock clock.Clock

	mu        sync.Mutex
	addr      string
	intercept Intercept
	except    []string
	log       []Request
}

// route is one line of the API: a pattern whose parts that begin with a colon are parameters.
type route struct {
	method, pattern string
	free            bool // answers without any lock of the process
	serve           func(call) answer
}

type call struct {
	params map[string]string
	body   []byte
}

type answer struct {
	status  int
	kind    string // of the content; JSON where empty
	body    []byte
	forward string // Location
}

// fromHeader tells who calls; the real programs do not send it.
const fromHeader = "X-Simulated-From"

// listen opens the port, the same one in every life.
func (p *port) listen() (net.Listener, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l, err := net.Listen("tcp", p.addr)
	if err == nil {
		p.addr = l.Addr().String()
	}
	return l, err
}

// Addr is where the process really listens for HTTP, also while it is stopped.
func (p *port) address() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.addr
}

// serve answers on l until the process ends.
func (p *port) serve(life *process, l net.Listener, routes []route) {
	// The mux of net/http cleans paths before the routes see them, as in the real programs.
	mux := http.NewServeMux()
	zips := &sync.Pool{New: func() any { z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed); return z }}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		done := make(chan struct{})
		defer close(done)
		if !life.run(func() { <-done }) || !p.handle(life, w, r, routes, zips) {
			panic(http.ErrAbortHandler)
		}
	})
	server := &http.Server{Handler: mux, ErrorLog: log.New(io.Discard, "", 0)} //nolint:gosec // loopback only; the real one has no time limits
	life.atEnd(func() { _ = server.Close() })
	life.run(func() { _ = server.Serve(l) })
}

// handle is one request, faults included. It says false where the connection is to be closed without an answer.
func (p *port) handle(life *process, w http.ResponseWriter, r *http.Request, routes []route, zips *sync.Pool) bool {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return false
	}
	rt, params := match(routes, r.Method, r.URL.Path)
	var leave func()
	var ok bool
	if rt == nil || rt.free {
		leave, ok = func() {}, life.gate.pass(life.ctx)
	} else {
		leave, ok = life.gate.enter(life.ctx)
	}
	if !ok {
		return false
	}
	defer leave()
	req := Request{At: life.clock.Now(), From: r.Header.Get(fromHeader), Method: r.Method, Path: r.URL.Path, Body: string(body)}
	var a answer
	carriedOut := false
	raw, keep := p.judge(req).Around(life.ctx, life.clock, r.Context().Done(), func() { p.note(req) }, func() ([]byte, bool) {
		carriedOut = true
		a = carryOut(rt, call{params, body})
		return a.body, true
	})
	if !life.gate.pass(life.ctx) {
		return false
	}
	switch {
	case keep && !carriedOut: // a failure, as the servers of other systems write it
		v, _ := resp.Read(bufio.NewReader(bytes.NewReader(raw)))
		a = failed(errors.New(v.Str))
	case !keep && raw != nil: // garbage
		if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_, _ = c.Write(raw)
			_ = c.Close()
		}
		return true
	case !keep:
		return false
	}
	a.write(w, r, zips)
	return true
}

func carryOut(rt *route, c call) (a answer) {
	if rt == nil {
		return answer{status: http.StatusNotFound, kind: "text/plain; charset=utf-8", body: []byte("404 page not found\n")}
	}
	defer func() {
		if e := recover(); e != nil {
			reason, ok := e.(decodePanic)
			if !ok {
				panic(e)
			}
			a = answer{status: http.StatusInternalServerError, kind: "text/html", body: fmt.Appendf(nil, panicPage, reason, reason)}
		}
	}()
	return rt.serve(c)
}

// match finds the first route for a path; a slash at the end is as good as none.
func match(routes []route, method, path string) (*route, map[string]string) {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	parts := strings.Split(strings.TrimSuffix(path, "/"), "/")
	for i := range routes {
		rt := &routes[i]
		if rt.method != method {
			continue
		}
		if params, ok := fits(strings.Split(strings.TrimSuffix(rt.pattern, "/"), "/"), parts); ok {
			return rt, params
		}
	}
	return nil, nil
}

func fits(pattern, parts []string) (map[string]string, bool) {
	if len(pattern) != len(parts) {
		return nil, false
	}
	params := map[string]string{}
	for i, p := range pattern {
		name, isParam := strings.CutPrefix(p, ":")
		switch {
		case isParam && parts[i] != "":
			params[name] = parts[i]
		case isParam || p != parts[i]:
			return nil, false
		}
	}
	return params, true
}

func (a answer) write(w http.ResponseWriter, r *http.Request, zips *sync.Pool) {
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	if a.kind != "" {
		h.Set("Content-Type", a.kind)
	}
	if a.forward != "" {
		h.Set("Location", a.forward)
	}
	if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") || len(a.body) == 0 {
		w.WriteHeader(a.status)
		_, _ = w.Write(a.body)
		return
	}
	h.Set("Content-Encoding", "gzip")
	h.Set("Vary", "Accept-Encoding")
	w.WriteHeader(a.status)
	z := zips.Get().(*gzip.Writer)
	defer zips.Put(z)
	z.Reset(w)
	_, _ = z.Write(a.body)
	_ = z.Close()
}

// done answers "OK", or the error.
func done(err error) answer {
	if err != nil {
		return failed(err)
	}
	return shown("OK")
}

func shown(v any) answer { return answer{status: http.StatusOK, body: encode(v)} }

// statusFailed is the status of every failure; no other program answers it.
const statusFailed = 800

func failed(err error) answer { return answer{status: statusFailed, body: encode(asRemote(err))} }

// remoteError is an error as it goes over the wire.
type remoteError struct {
	Cause string
	Stack []frame
}

type frame struct {
	Name string
	File string
	Line int
}

// tracedError is an error that carries where it came from. Which errors do is part of what clients see.
type tracedError struct {
	error
	stack []frame
}

func (e *tracedError) Unwrap() error { return e.error }

func asRemote(err error) *remoteError {
	r := &remoteError{Cause: err.Error()}
	var t *tracedError
	if errors.As(err, &t) {
		r.Stack = t.stack
	}
	return r
}

func tracef(format string, args ...any) error { return trace(fmt.Errorf(format, args...)) }

func trace(err error) error {
	var t *tracedError
	if err == nil || errors.As(err, &t) {
		return err
	}
	pcs := make([]uintptr, 32)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	t = &tracedError{error: err}
	for {
		f, more := frames.Next()
		file := f.File
		if _, rest, ok := strings.Cut(file, "/internal/"); ok {
			file = "internal/" + rest
		}
		t.stack = append(t.stack, frame{f.Function, file, f.Line})
		if !more {
			return t
		}
	}
}

// decodePanic is what the real program's JSON binding panics with.
type decodePanic string

const panicPage = `<html>
<head><title>PANIC: %s</title>
</head><body>
<h1>PANIC</h1>
<pre style="font-weight: bold;">%s</pre>
</body>
</html>`

// bindList decodes a request's list as the real program does: errors are ignored and what was decoded until then is used, and
// a null in it panics.
func bindList[T any](body []byte) []*T {
	var list []*T
	_ = json.NewDecoder(bytes.NewReader(body)).Decode(&list)
	for _, v := range list {
		if v == nil {
			panic(decodePanic("reflect: call of reflect.Value.Field on zero Value"))
		}
	}
	return list
}

func (c call) number(name string) (int, error) {
	n, err := strconv.Atoi(c.params[name])
	if err != nil {
		return 0, errors.New("invalid " + name)
	}
	return n, nil
}

// do carries out a call without the wire.
func do(routes []route, method, path, xauth string, body []byte) (int, []byte) {
	rt, params := match(routes, method, path)
	if params["xauth"] == ":xauth" {
		params["xauth"] = xauth
	}
	a := carryOut(rt, call{params, body})
	return a.status, a.body
}

// cause finds the words of a failure in an answer.
func cause(content []byte) string {
	var e remoteError
	if json.Unmarshal(content, &e) != nil {
		return string(content)
	}
	return e.Cause
}

package lab

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
)

// relay stands before the HTTP address of a dashboard or a proxy, so that a test can act at the very request that
// matters. What is asked through it reaches the program unchanged.
type relay struct {
	t      *testing.T
	addr   string
	server *httputil.ReverseProxy

	mu   sync.Mutex
	hook hook
	http *http.Server
}

// hook is asked about a request that changes something. carryOut has the program do it, and drops the answer. pass: it
// goes its way; otherwise whoever asked gets no answer.
type hook func(path string, body []byte, carryOut func()) (pass bool)

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	r := &relay{t: t, addr: loopback(free.take(t))}
	r.server = httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: to})
	r.server.Transport = &http.Transport{}
	r.server.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { panic(http.ErrAbortHandler) } // as if it had been asked itself
	r.server.ErrorLog = log.New(io.Discard, "", 0)
	r.open()
	t.Cleanup(r.shut)
	return r
}

// open takes connections.
func (r *relay) open() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.http != nil {
		return
	}
	l, err := net.Listen("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.http = &http.Server{Handler: r, ErrorLog: log.New(io.Discard, "", 0)}
	go func(s *http.Server) {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			r.t.Error(err)
		}
	}(r.http)
}

// shut cuts all connections and refuses new ones, as the address of a program that has ended does.
func (r *relay) shut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.http != nil {
		_ = r.http.Close()
		r.http = nil
	}
}

// on has f asked about every request that changes something; nil: all pass.
func (r *relay) on(f hook) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hook = f
}

func (r *relay) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	hook := r.hook
	r.mu.Unlock()
	if hook == nil || req.Method == http.MethodGet {
		r.server.ServeHTTP(w, req)
		return
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	// The one who asked may give up: the program has its request all the same.
	req = req.WithContext(context.WithoutCancel(req.Context()))
	deliver := func(w http.ResponseWriter) {
		req.Body = io.NopCloser(bytes.NewReader(body))
		r.server.ServeHTTP(w, req)
	}
	if !hook(req.URL.Path, body, func() { deliver(&discard{http.Header{}}) }) {
		panic(http.ErrAbortHandler)
	}
	deliver(w)
}

// discard takes an answer that nobody gets.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(int)             {}

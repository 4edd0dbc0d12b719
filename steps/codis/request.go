package codis

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"runbook/steps"
)

// maskedXAuth stands where the xauth was.
const maskedXAuth = "<xauth>"

// xauth is how Codis tells that a request is meant for it: a hash over the product name,
// and for a proxy over product_auth and its token too. It is no secret by nature, but for a
// proxy it is made of one.
func xauth(segments ...string) string {
	sum := sha256.Sum256([]byte("Codis-XAuth-[" + strings.Join(segments, "]-[") + "]"))
	return hex.EncodeToString(sum[:16])
}

// status that Codis answers an error with.
const statusError = 800

// maxBody bounds an answer. GET /topom of a product of 1024 slots has 150 KB, and some
// kilobytes for each server and proxy.
const maxBody = 64 << 20

// request is what is asked and where. Printed, it shows no xauth.
type request struct {
	method string
	addr   string
	path   string // with maskedXAuth where the xauth belongs
	xauth  string
	body   any // sent as JSON; nil: none
}

// String gives "put /api/topom/group/create/<xauth>/9 on 127.0.0.1:18080".
func (r request) String() string {
	return strings.ToLower(r.method) + " " + r.path + " on " + r.addr
}

func (r request) writes() bool { return r.method != http.MethodGet }

func (r request) url() *url.URL {
	return &url.URL{Scheme: "http", Host: r.addr, Path: strings.Replace(r.path, maskedXAuth, r.xauth, 1)}
}

// reading routes: what a client that only looks may ask. A route that is missing here is refused.
var readingRoutes = regexp.MustCompile(`^(/topom(/model|/stats|/slots)?|/proxy/(model|stats|slots))$`)

// exchange speaks HTTP for a client and its proxies. It follows no redirect and repeats
// nothing: a request that may act has gone out once at most. No connection outlives its request, so
// that none that the other side has given up can leave a request in doubt.
type exchange struct {
	access  steps.Access
	dial    steps.Dialer
	timeout time.Duration
	http    *http.Client
}

func newExchange(access steps.Access, timeout time.Duration) *exchange {
	x := &exchange{access: access, timeout: timeout, dial: (&net.Dialer{}).DialContext}
	x.http = &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:       func(ctx context.Context, network, addr string) (net.Conn, error) { return x.dial(ctx, network, addr) },
			DisableKeepAlives: true,
		},
	}
	return x
}

// do sends one request and gives the body of the answer to it.
func (x *exchange) do(ctx context.Context, req request) ([]byte, error) {
	if x.access == steps.ReadOnly && (req.method != http.MethodGet || !readingRoutes.MatchString(req.path)) {
		return nil, &steps.Error{Kind: "refused-write", Err: &RefusedError{Request: req.String()}}
	}
	if ctx.Err() != nil {
		return nil, broken(ctx, req, ctx.Err(), false)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, x.timeout, noAnswer{x.timeout})
	defer cancel()

	var body io.Reader
	if req.body != nil {
		b, err := json.Marshal(req.body)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", req, err)
		}
		body = bytes.NewReader(b)
	}
	var connected atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	r, err := http.NewRequestWithContext(traced, req.method, req.url().String(), body)
	if err != nil {
		return nil, steps.Errorf("address", "%s: %w", req, plain(err))
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := x.http.Do(r)
	if err != nil {
		return nil, broken(ctx, req, err, connected.Load())
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	switch {
	case err != nil:
		return nil, broken(ctx, req, err, true)
	case len(answer) > maxBody:
		return nil, &steps.Error{Kind: "reply", Unknown: req.writes(), Err: fmt.Errorf("%s: the answer has more than %d bytes", req, maxBody)}
	}
	return judge(req, resp, answer)
}

// judge tells an answer to the request from an error, and both from what Codis does not say.
func judge(req request, resp *http.Response, body []byte) ([]byte, error) {
	switch resp.StatusCode {
	case http.StatusOK:
		return body, nil
	case statusError:
		var e RemoteError
		if err := json.Unmarshal(body, &e); err != nil || e.Cause == "" {
			return nil, &steps.Error{Kind: "reply", Unknown: req.writes(), Err: fmt.Errorf("%s: an error without a cause: %s", req, firstWords(body))}
		}
		return nil, answered(req, e.Cause)
	case http.StatusNotFound:
		return nil, steps.Errorf("not-found", "%s: %s", req, firstWords(body)).
			WithHint("no such route on %s: is this the admin address of a Codis 3.2 dashboard or proxy?", req.addr)
	case http.StatusInternalServerError: // a panic in the handler, which may have come after something was stored
		return nil, &steps.Error{Kind: "codis", Unknown: req.writes(), Err: fmt.Errorf("%s: %d: %s", req, resp.StatusCode, firstWords(body))}
	}
	e := &steps.Error{Kind: "reply", Unknown: req.writes() && resp.StatusCode >= 500, Err: fmt.Errorf("%s: status %d: %s", req, resp.StatusCode, firstWords(body))}
	if to := resp.Header.Get("Location"); to != "" {
		e.Err = fmt.Errorf("%s: status %d, a redirect to %s, which is not followed", req, resp.StatusCode, hideXAuth(to))
	}
	return nil, e
}

var tag = regexp.MustCompile(`<[^>]*>`)

// firstWords gives the first line of a body that has words, without markup.
func firstWords(body []byte) string {
	const longest = 200
	for line := range strings.Lines(string(body[:min(len(body), 4096)])) {
		line = strings.TrimSpace(tag.ReplaceAllString(line, ""))
		if line == "" {
			continue
		}
		if len(line) > longest {
			line = strings.ToValidUTF8(line[:longest], "") + "…"
		}
		return hideXAuth(line)
	}
	return "nothing in the answer's body"
}

// get asks and decodes the answer into x.
func (x *exchange) get(ctx context.Context, addr, path string, into any) error {
	req := request{method: http.MethodGet, addr: addr, path: path}
	body, err := x.do(ctx, req)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, into); err != nil {
		return unreadable(req, err)
	}
	return nil
}

func unreadable(req request, err error) error {
	return &steps.Error{Kind: "reply", Unknown: req.writes(), Err: fmt.Errorf("%s: the answer cannot be read: %w", req, err)}
}

// put asks for a change. Anything but Codis' "OK" is not taken for one: a 200 may come from anybody.
func (x *exchange) put(ctx context.Context, req request) error {
	req.method = http.MethodPut
	body, err := x.do(ctx, req)
	if err != nil {
		return err
	}
	var ok string
	if err := json.Unmarshal(body, &ok); err != nil || ok != "OK" {
		return &steps.Error{Kind: "reply", Unknown: true, Err: fmt.Errorf("%s: \"OK\" was expected, not %s", req, firstWords(body))}
	}
	return nil
}

// commands are the requests that change something, under /api/topom; the xauth follows, then the parameters.
var commands = [...]string{
	"group/create", "group/remove", "group/resync", "group/add", "group/del", "group/promote", "group/action/create", "group/action/remove",
	"slots/action/create", "slots/action/create-range", "slots/action/remove", "slots/action/interval", "slots/action/disabled", "slots/assign",
	"proxy/create", "proxy/online", "proxy/reinit", "proxy/remove", "reload",
}

// commandPath puts the xauth's place behind the command: group/create, 9 is
// /api/topom/group/create/<xauth>/9. An empty parameter would be another route.
func commandPath(words ...string) (string, error) {
	all := strings.Split(strings.Join(words, "/"), "/")
	for n := min(len(all), 3); n > 0; n-- {
		command := strings.Join(all[:n], "/")
		if !slices.Contains(commands[:], command) {
			continue
		}
		if slices.Contains(all, "") {
			return "", steps.Errorf("address", "%s: an empty parameter in %q", command, strings.Join(words, "/"))
		}
		return "/api/topom/" + strings.Join(slices.Concat([]string{command, maskedXAuth}, all[n:]), "/"), nil
	}
	return "", steps.Errorf("address", "%s is no request of a dashboard", strings.Join(words, "/"))
}

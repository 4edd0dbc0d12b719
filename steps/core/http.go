package core

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"

	"runbook/schema"
	"runbook/steps"
	"runbook/steps/host"
)

type httpIn struct {
	Method  string            `yaml:"method" default:"GET" enum:"GET,HEAD,OPTIONS,POST,PUT,PATCH,DELETE" doc:"Method. GET, HEAD and OPTIONS read, the others write, unless the step's effect says otherwise."`
	URL     string            `yaml:"url,required" doc:"http or https address."`
	Headers map[string]string `yaml:"headers" doc:"Headers sent; may hold secrets."`
	Body    string            `yaml:"body" doc:"Body sent; may hold secrets."`
	JSON    any               `yaml:"json" doc:"Value sent as the body in JSON, with its content type; instead of body."`
	OkCodes []int             `yaml:"ok_codes" doc:"Status codes besides 200 to 299 that are no failure."`
	MaxBody schema.Size       `yaml:"max_body" default:"1mb" doc:"Most that is read of the answer."`
}

type httpOut struct {
	Status    int               `yaml:"status" doc:"Status code."`
	Headers   map[string]string `yaml:"headers" doc:"Headers of the answer; names in lower case."`
	Body      string            `yaml:"body" doc:"Body of the answer, up to max_body."`
	JSON      any               `yaml:"json" doc:"The body, if it is a whole JSON document; otherwise null."`
	Truncated bool              `yaml:"truncated" doc:"The body was longer than max_body."`
}

func httpKind() *steps.Kind[httpIn, httpOut] {
	return &steps.Kind[httpIn, httpOut]{
		Name: "http",
		Doc: "Sends one HTTP request, from the runner's machine or, with a target of kind host, from there. A status outside 200 to 299 is a failure unless ok_codes has it. " +
			"Requests that read follow up to 10 redirects, requests that write none.",
		Effect: steps.Write, AuthorKnows: true, On: []string{host.KindName}, TargetOptional: true,
		EffectOf: func(in httpIn) steps.Effect {
			if reads(in.Method) {
				return steps.Read
			}
			return steps.Write
		},
		Example: `{id: topology, uses: http, with: {url: "http://127.0.0.1:18080/topom"}}`,
		Pitfalls: []string{
			"Some systems change things on GET, and some answer 200 to what failed: say effect, and expect something of the body.",
			"A request that writes and gets no answer may have been carried out: give a probe.",
			"A redirect of a request that writes would repeat it as a GET: it is an answer of its own here.",
			"502 and 504 come from something between: whether the request was carried out is not known.",
			"A url is shown and journaled: secrets go into headers or body.",
		},
		Valid: validHTTP,
		Plan: func(_ context.Context, v *steps.View, in httpIn) (steps.Change, error) {
			line := method(in.Method) + " " + in.URL
			var with []string
			if len(in.Headers) > 0 {
				with = append(with, "headers "+strings.Join(slices.Sorted(maps.Keys(in.Headers)), ", "))
			}
			body, _, err := in.body()
			if err != nil {
				return steps.Change{}, err
			}
			if len(body) > 0 {
				with = append(with, fmt.Sprintf("a body of %d bytes", len(body)))
			}
			if len(with) > 0 {
				line += " (with " + strings.Join(with, ", and ") + ")"
			}
			return steps.Change{Lines: []steps.Line{{Target: targetName(v), Command: line}}}, nil
		},
		Read: func(ctx context.Context, v steps.View, in httpIn) (httpOut, error) { return request(ctx, v, in) },
		Apply: func(ctx context.Context, s steps.Session, in httpIn) (httpOut, error) {
			return request(ctx, s.View, in)
		},
		NoUndo: "only its author knows what takes a request back: write undo",
	}
}

func method(m string) string {
	if m == "" {
		return http.MethodGet
	}
	return m
}

// reads tells whether a method only reads; empty is not known.
func reads(m string) bool {
	return m == http.MethodGet || m == http.MethodHead || m == http.MethodOptions
}

func validHTTP(in httpIn, unknown func(string) bool) []steps.Problem {
	var p []steps.Problem
	if !unknown("url") {
		u, err := url.Parse(in.URL)
		switch {
		case err != nil:
			p = append(p, steps.Problem{Input: "url", Message: "url cannot be read"})
		case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
			p = append(p, steps.Problem{Input: "url", Message: "url must be http://… or https://…"})
		case u.User != nil:
			p = append(p, steps.Problem{Input: "url", Message: "a password does not belong into url, which is shown and journaled", Suggestion: "headers: {Authorization: …}"})
		}
	}
	if in.Body != "" && in.JSON != nil {
		p = append(p, steps.Problem{Input: "json", Message: "a request has body or json, not both"})
	}
	if in.Method == http.MethodGet && (in.Body != "" || in.JSON != nil) && !unknown("method") {
		p = append(p, steps.Problem{Input: "method", Message: "a GET has no body", Suggestion: "method: POST"})
	}
	for _, c := range in.OkCodes {
		if c < 100 || c > 599 {
			p = append(p, steps.Problem{Input: "ok_codes", Message: fmt.Sprintf("a status code is 100 to 599, got %d", c)})
		}
	}
	return p
}

func (in httpIn) body() ([]byte, string, error) {
	if in.JSON == nil {
		return []byte(in.Body), "", nil
	}
	b, err := json.Marshal(in.JSON)
	if err != nil {
		return nil, "", steps.Errorf("body", "json of %s: %w", in.URL, err)
	}
	return b, "application/json", nil
}

// request sends it. A View is enough, since it only lends its machine to dial from:
// whether the request may write was decided by its effect.
func request(ctx context.Context, v steps.View, in httpIn) (httpOut, error) {
	verb := method(in.Method)
	what := verb + " " + in.URL
	body, contentType, err := in.body()
	if err != nil {
		return httpOut{}, err
	}
	m, err := host.Of(ctx, v, "")
	if err != nil {
		return httpOut{}, err
	}
	var sent atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { sent.Store(true) }})
	req, err := http.NewRequestWithContext(traced, verb, in.URL, bytes.NewReader(body))
	if err != nil {
		return httpOut{}, steps.Errorf("request", "%s: %w", what, err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for name, value := range in.Headers {
		if strings.EqualFold(name, "host") {
			req.Host = value
			continue
		}
		req.Header.Set(name, value)
	}
	client, done := clientFrom(m, reads(verb), host.IsLocal(v, ""))
	defer done()
	resp, err := client.Do(req)
	if err != nil {
		return httpOut{}, requestError(ctx, what, err, sent.Load() && !reads(verb))
	}
	defer func() { _ = resp.Body.Close() }()
	out := httpOut{Status: resp.StatusCode, Headers: make(map[string]string, len(resp.Header))}
	for name, values := range resp.Header {
		out.Headers[strings.ToLower(name)] = strings.Join(values, ", ")
	}
	got, err := io.ReadAll(io.LimitReader(resp.Body, int64(in.MaxBody)+1))
	if err != nil {
		return out, requestError(ctx, what+": read the answer", err, !reads(verb))
	}
	if out.Truncated = len(got) > int(in.MaxBody); out.Truncated {
		got = got[:in.MaxBody]
	}
	out.Body = strings.ToValidUTF8(string(got), "\uFFFD")
	if v, err := parseJSON(out.Body); err == nil && !out.Truncated {
		out.JSON = v
	}
	return out, in.accepts(what, out)
}

// accepts is nil for a status that is no failure.
func (in httpIn) accepts(what string, out httpOut) error {
	if out.Status >= 200 && out.Status < 300 || slices.Contains(in.OkCodes, out.Status) {
		return nil
	}
	e := &steps.Error{Kind: "status", Err: fmt.Errorf("%s: status %d %s", what, out.Status, http.StatusText(out.Status))}
	if said := lastLines(out.Body, 3); said != "" {
		e.Err = fmt.Errorf("%w: %s", e.Err, said)
	}
	switch {
	case out.Status == http.StatusUnauthorized || out.Status == http.StatusForbidden:
		e.Kind = "auth"
	case out.Status == http.StatusNotFound:
		e.Kind = "not-found"
	case out.Status == http.StatusTooManyRequests || out.Status >= 500:
		e.Temporary = true
		e.Unknown = !reads(method(in.Method)) && (out.Status == http.StatusBadGateway || out.Status == http.StatusGatewayTimeout)
	case out.Status >= 300 && out.Status < 400:
		return e.WithHint("it redirects to %s", out.Headers["location"])
	}
	return e
}

// clientFrom makes a client that dials from a machine, and what ends its connections.
func clientFrom(m host.Machine, follow, local bool) (*http.Client, func()) {
	t := &http.Transport{
		DialContext:       func(ctx context.Context, _, addr string) (net.Conn, error) { return m.Dial(ctx, addr) },
		DisableKeepAlives: true, // one request, and nothing left behind
		TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if local {
		t.Proxy = http.ProxyFromEnvironment // the environment of the runner says nothing about another machine
	}
	c := &http.Client{Transport: t}
	if !follow {
		c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	return c, t.CloseIdleConnections
}

// requestError says what became of a request without an answer. unknown: it went out, and would change something.
func requestError(ctx context.Context, what string, err error, unknown bool) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // it names method and address, as what does
	}
	e := &steps.Error{Kind: "closed", Temporary: true, Unknown: unknown, Err: fmt.Errorf("%s: %w", what, err)}
	var dial *steps.Error
	var cert *tls.CertificateVerificationError
	var timeout net.Error
	switch {
	case ctx.Err() != nil:
		e.Err = fmt.Errorf("%s: %w", what, context.Cause(ctx))
		e.Kind, e.Temporary = "canceled", false
		if errors.Is(ctx.Err(), context.DeadlineExceeded) || errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
			e.Kind, e.Temporary = "timeout", true
		}
	case errors.As(err, &dial):
		e.Kind, e.Temporary, e.Hint = dial.Kind, dial.Temporary, dial.Hint
	case errors.As(err, &cert):
		e.Kind, e.Temporary = "tls", false
	case errors.As(err, &timeout) && timeout.Timeout():
		e.Kind = "timeout"
	}
	return e
}

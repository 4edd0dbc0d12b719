package codis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"regexp"
	"strings"
	"syscall"
	"time"

	"runbook/steps"
)

// What the kinds of failures of a request mean for what was asked (a GET leaves nothing in doubt):
//
//	refused     nothing listens there, or the way there is shut: not sent, may pass
//	address     the name does not resolve: not sent
//	timeout     no connection in time: not sent; no answer in time: outcome unknown
//	closed      the connection ended: outcome unknown once there was one
//	reply       what came back is not Codis': outcome unknown where it may be an answer to the request
//	canceled    the run is stopping: outcome unknown once there was a connection
//	codis       the dashboard or the proxy answered an error: a CauseError is in the chain. Not carried
//	            out, except where Codis is known to fail after having stored something
//	auth        the same, for a wrong product name or product_auth
//	not-found   no such route there: not carried out
//	refused-write  a client that only looks was asked to do more: not sent

// CauseError is an error that a dashboard or a proxy answered, HTTP 800, in its own words.
// There are no codes: its text is all there is to branch on.
type CauseError struct{ Cause string }

func (e *CauseError) Error() string { return e.Cause }

// Cause gives what the dashboard or the proxy answered, where err is such an answer.
func Cause(err error) (string, bool) {
	var e *CauseError
	if errors.As(err, &e) {
		return e.Cause, true
	}
	return "", false
}

// RefusedError is the error of a client that only looks, asked to do more. Nothing was sent.
type RefusedError struct{ Request string }

func (e *RefusedError) Error() string {
	return e.Request + ": refused, only reading is allowed here"
}

// persisted are the ends of Codis' words for a failure that comes after it has stored
// something: the store is written first, and then proxies or servers are told.
var persisted = [...]string{
	"resync slots failed",                                      // the mapping is stored, other proxies have it
	"fillslots failed", "start failed", "set sentinels failed", // the proxy is registered
	"shutdown failed", // the proxy may be ending
}

// answered judges an error that was answered as such.
func answered(req request, cause string) error {
	cause = hideXAuth(cause)
	e := &steps.Error{Kind: "codis", Err: fmt.Errorf("%s: %w", req, &CauseError{Cause: cause})}
	switch {
	case strings.Contains(cause, "invalid xauth"), strings.Contains(cause, "missing xauth"), strings.Contains(cause, "check xauth failed"):
		e.Kind, e.Hint = "auth", "check product and product_auth of the target: the dashboard is asked by product alone, a proxy by product, product_auth and token"
	case strings.Contains(cause, "is not online"):
		e.Temporary = true
		e.Hint = "the dashboard does not hold its lock: it is starting, or another one has the lock, or one that was killed has left it (it is tried for 32 s, then codis-dashboard --remove-lock is needed)"
	case strings.HasPrefix(cause, "slots-migration is running"):
		e.Temporary = true
	case strings.HasPrefix(cause, "store: load"):
		e.Temporary = true
		e.Hint = "the dashboard cannot read its coordinator (ZooKeeper, etcd or the file system)"
	case strings.HasPrefix(cause, "store: "):
		e.Unknown = req.writes()
	}
	for _, end := range persisted {
		if strings.HasSuffix(cause, end) {
			e.Unknown = req.writes()
		}
	}
	if strings.HasSuffix(cause, "resync slots failed") {
		e.Hint = "the mapping is stored and the other proxies have it: restart that proxy with the same ports, or take it out of the list (proxy/remove with force), then repeat"
	}
	return e
}

// noAnswer is the cause when a request's own time is over, not the step's.
type noAnswer struct{ after time.Duration }

func (e noAnswer) Error() string { return fmt.Sprintf("no answer within %s", e.after) }
func (noAnswer) Timeout() bool   { return true }

// broken judges an exchange that ended without an answer. connected: there was a connection,
// so that the request may have gone out.
func broken(ctx context.Context, req request, err error, connected bool) error {
	unknown := connected && req.writes()
	var dns *net.DNSError
	switch {
	case ctx.Err() != nil:
		kind, temporary := "canceled", false
		cause := context.Cause(ctx)
		var e *steps.Error
		switch {
		case errors.As(cause, &e):
			kind, temporary = e.Kind, e.Temporary
		case errors.As(cause, new(noAnswer)), errors.Is(cause, context.DeadlineExceeded), errors.Is(ctx.Err(), context.DeadlineExceeded):
			kind, temporary = "timeout", true
		}
		return &steps.Error{Kind: kind, Temporary: temporary, Unknown: unknown, Err: fmt.Errorf("%s: %w", req, cause)}
	case errors.As(err, &dns):
		return &steps.Error{Kind: "address", Temporary: dns.IsTemporary || dns.IsTimeout, Err: fmt.Errorf("%s: %w", req, dns)}
	case !connected && errors.Is(err, syscall.ECONNREFUSED):
		return steps.Temporarily("refused", fmt.Errorf("%s: %w", req, syscall.ECONNREFUSED)).
			WithHint("nothing listens on %s: is it up, and is this its admin address?", req.addr)
	case !connected:
		return steps.Temporarily("refused", fmt.Errorf("%s: connect: %w", req, plain(err)))
	}
	if strings.Contains(err.Error(), "malformed HTTP") {
		return &steps.Error{Kind: "reply", Unknown: unknown, Err: fmt.Errorf("%s: the answer is not HTTP", req)}
	}
	return &steps.Error{Kind: "closed", Temporary: true, Unknown: unknown, Err: fmt.Errorf("%s: the connection was cut before an answer came: %w", req, plain(err))}
}

// plain drops the URL, which holds the xauth, and the ends' addresses, which the request's line has.
func plain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	var op *net.OpError
	switch {
	case errors.As(err, &op):
		return op.Err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return io.ErrUnexpectedEOF
	}
	return err
}

// afterwards marks what failed once a request was carried out: the step's outcome is for the probe to tell.
func afterwards(err error) error {
	if err == nil {
		return nil
	}
	e := *steps.Classify(err)
	e.Unknown = true
	return &e
}

// xauthInPath finds the xauth of the addresses that Codis quotes in its own errors.
var xauthInPath = regexp.MustCompile(`(/api/(?:topom|proxy)/[a-z/-]+/)[0-9a-f]{32}`)

// hideXAuth takes the xauth out of a text that somebody else wrote.
func hideXAuth(s string) string { return xauthInPath.ReplaceAllString(s, "${1}"+maskedXAuth) }

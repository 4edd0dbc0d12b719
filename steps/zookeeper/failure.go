package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/go-zookeeper/zk"

	"runbook/steps"
)

// request is what was attempted, on what.
type request struct {
	addr, what, path string
	write            bool
}

func (r request) String() string { return fmt.Sprintf("%s %s on %s", r.what, r.path, r.addr) }

// refuse is the error of a client that only looks, asked to do more. Nothing was sent.
func refuse(req request) error {
	return steps.Errorf("refused-write", "%s: refused, only reading is allowed here", req)
}

// noAnswer is the cause when a request's own time is over, not the step's.
type noAnswer struct{ after time.Duration }

func (e noAnswer) Error() string { return fmt.Sprintf("no answer within %s", e.after) }
func (noAnswer) Timeout() bool   { return true }

// ended tells apart why a context ended: the request's own time, the step's, or the run's.
func ended(ctx context.Context, req request, sent bool) error {
	cause := context.Cause(ctx)
	kind, temporary := "canceled", false
	var e *steps.Error
	switch {
	case errors.As(cause, &e):
		kind, temporary = e.Kind, e.Temporary
	case errors.As(cause, new(noAnswer)), errors.Is(cause, context.DeadlineExceeded), errors.Is(ctx.Err(), context.DeadlineExceeded):
		kind, temporary = "timeout", true
	}
	return &steps.Error{Kind: kind, Temporary: temporary, Unknown: sent && req.write, Err: fmt.Errorf("%s: %w", req, cause)}
}

// judge turns the end of a call into what a step must know. reached: the server may have the request; dial: why it was not reached.
func judge(req request, err error, reached bool, dial error) error {
	fail := func(kind string) *steps.Error {
		return &steps.Error{Kind: kind, Err: fmt.Errorf("%s: %w", req, err)}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, zk.ErrNoServer):
		if dial == nil {
			dial = errors.New("the server closes the connection: it does not serve yet, or no more")
		}
		return steps.Temporarily("refused", fmt.Errorf("%s: connect: %w", req, plain(dial))).
			WithHint("no server of %s takes connections: are they up, and are these their addresses?", req.addr)
	case errors.Is(err, zk.ErrConnectionClosed), errors.Is(err, zk.ErrClosing):
		return &steps.Error{Kind: "closed", Temporary: true, Unknown: reached && req.write,
			Err: fmt.Errorf("%s: the connection was cut before an answer came", req)}
	case errors.Is(err, zk.ErrSessionExpired), errors.Is(err, zk.ErrSessionMoved): // the server's own word: it has not carried it out
		e := fail("expired")
		e.Temporary = true
		return e
	case errors.Is(err, zk.ErrNoNode):
		return fail("not-found")
	case errors.Is(err, zk.ErrNodeExists), errors.Is(err, zk.ErrBadVersion), errors.Is(err, zk.ErrNotEmpty), errors.Is(err, zk.ErrNoChildrenForEphemerals):
		return fail("conflict")
	case errors.Is(err, zk.ErrNoAuth), errors.Is(err, zk.ErrAuthFailed), errors.Is(err, zk.ErrInvalidACL):
		return fail("auth").WithHint("the node's ACL does not let this client do so: check the target's auth")
	case errors.Is(err, zk.ErrInvalidPath):
		return fail("input")
	case errors.As(err, new(net.Error)): // the library hands out the error of a write that did not go out whole
		e := fail("closed")
		e.Temporary, e.Unknown = true, req.write
		return e
	}
	return fail("server")
}

// plain drops the ends' addresses, which the request's line has.
func plain(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

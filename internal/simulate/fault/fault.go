// Package fault is what can go wrong with a request to a simulated server. The simulators of every system share it, so
// that a rehearsal names a fault once, whatever answers.
package fault

import (
	"context"
	"time"

	"runbook/internal/simulate/clock"
	"runbook/internal/simulate/resp"
)

// Action is what becomes of a request instead of, or before, being carried out.
type Action struct {
	kind  kind
	text  string
	delay time.Duration
}

type kind int

const (
	pass kind = iota
	fail
	hang
	cutBefore
	cutAfter
	garbage
	delay
)

// Pass carries the request out as if nobody watched. It is the zero Action.
func Pass() Action { return Action{} }

// Fail answers an error, such as "ERR out of order", and does not carry the request out.
func Fail(text string) Action { return Action{kind: fail, text: text} }

// Hang never answers and does not carry the request out; the connection stays open.
func Hang() Action { return Action{kind: hang} }

// CutBefore closes the connection without carrying the request out.
func CutBefore() Action { return Action{kind: cutBefore} }

// CutAfter carries the request out and closes the connection instead of answering: the reply is lost.
func CutAfter() Action { return Action{kind: cutAfter} }

// Garbage carries the request out and answers these bytes instead of the reply, then closes.
func Garbage(bytes string) Action { return Action{kind: garbage, text: bytes} }

// Delay carries the request out after d of the world's time.
func Delay(d time.Duration) Action { return Action{kind: delay, delay: d} }

// Intercept is asked about every request of a client before anything else looks at it. It runs outside the server's
// lock and may call the server; but Stop, Restart and Close wait for it, so it begins those on a goroutine of their own.
type Intercept func(cmd []string) Action

// Forever is a delay that does not end: a full sync that is stuck, a lag that never becomes zero.
const Forever = time.Duration(1 << 62)

// Write is a request that would change something, as a client sent it.
type Write struct {
	At     time.Time // the world's time
	Client string    // its CLIENT SETNAME, or ""
	Args   []string
}

// Around carries a request out as the action says. note is called where the request reaches the server, do carries it out
// and gives the bytes to answer; gone is closed when the client's connection is. keep tells whether the connection goes on.
func (a Action) Around(ctx context.Context, clk clock.Clock, gone <-chan struct{}, note func(), do func() (reply []byte, keep bool)) (reply []byte, keep bool) {
	switch a.kind {
	case fail:
		note()
		return resp.Errorf("%s", a.text).Append(nil, 2), true
	case hang:
		note()
		select {
		case <-gone:
		case <-ctx.Done():
		}
		return nil, false
	case cutBefore:
		return nil, false
	case delay:
		if clk.Sleep(ctx, a.delay) != nil {
			return nil, false
		}
	}
	note()
	reply, keep = do()
	switch {
	case a.kind == cutAfter:
		return nil, false
	case a.kind == garbage && reply != nil:
		return []byte(a.text), false
	}
	return reply, keep
}

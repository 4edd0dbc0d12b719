package zookeeper

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	"runbook/steps"
)

// lease is a lock that is held: a node that lives with a session of its own.
//
// The servers end a session that they have not heard for its term. So the lease is good for that long from when the
// last request went out that was answered, whatever the network does; it counts as lost a quarter of the term earlier.
// It is asked for often enough that it runs out only when the servers are not reached.
type lease struct {
	name   string
	s      *session
	dir    string // with the chroot, as are all paths here
	node   string
	acl    []zk.ACL
	fence  int64
	owner  int64 // the session
	claims bool

	over chan struct{} // closed at the end, lost or released
	lost chan struct{}
	work sync.WaitGroup

	mu     sync.Mutex
	ended  bool
	why    error
	good   time.Time // when the last request went out that was answered
	holder []byte
}

// Fence is the czxid of the lock's node.
func (l *lease) Fence() int64 { return l.fence }

// Lost is closed when the lease is lost.
func (l *lease) Lost() <-chan struct{} { return l.lost }

// Err says why it is lost.
func (l *lease) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.why
}

// gone says why the lease has ended; nil: it has not.
func (l *lease) gone() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended && l.why == nil {
		return errReleased
	}
	return l.why
}

// ask runs one exchange of the library, which knows no context. What nobody waits for any more may still go out: it
// looks, or says who holds the lock. A session that is not connected keeps it until it is, or until no server is found.
func (l *lease) ask(ctx context.Context, do func() error) error {
	sent := time.Now()
	done := make(chan error, 1)
	l.work.Go(func() { done <- do() })
	select {
	case err := <-done:
		if err == nil {
			l.renew(sent)
		}
		return err
	case <-l.s.expired:
		return zk.ErrSessionExpired
	case <-l.over:
		return l.gone()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (l *lease) renew(sent time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if sent.After(l.good) {
		l.good = sent
	}
}

// left is how long the lease is still good. A machine that slept has not stopped the servers' clocks: the time on the
// wall counts as well.
func (l *lease) left() time.Duration {
	l.mu.Lock()
	good := l.good
	l.mu.Unlock()
	now := time.Now()
	return l.s.term()*3/4 - max(now.Sub(good), now.Round(0).Sub(good.Round(0)))
}

// enough is what must be left when something is about to be changed.
func (l *lease) enough() bool { return l.left() >= l.s.term()/2 }

// askAgain is how long is waited after a request that the connection has lost.
const askAgain = 20 * time.Millisecond

// keep asks for the lock's node until the lease has ended, and ends it when it is lost.
func (l *lease) keep() {
	for pause := time.Duration(0); ; {
		timer := time.NewTimer(min(pause, max(0, l.left())))
		select {
		case <-l.over:
			timer.Stop()
			return
		case <-l.s.expired:
			timer.Stop()
			l.lose(errGone)
			return
		case <-timer.C:
		}
		limited, cancel := context.WithTimeout(context.Background(), max(0, l.left()))
		err := l.ask(limited, l.look)
		cancel()
		switch {
		case err == nil:
			pause = l.s.term() / 8
		case l.judge(err) != nil:
			return
		default:
			pause = askAgain
		}
	}
}

// look asks for the lock's node.
func (l *lease) look() error {
	there, stat, err := l.s.conn.Exists(l.node)
	return l.mine(there, stat, err)
}

func (l *lease) mine(there bool, stat *zk.Stat, err error) error {
	if err == nil && (!there || stat.Czxid != l.fence || stat.EphemeralOwner != l.owner) {
		return zk.ErrNoNode
	}
	return err
}

// judge tells what the error of a request means: nil, it may be made again.
func (l *lease) judge(err error) error {
	if why := l.Err(); why != nil {
		return why
	}
	switch {
	case errors.Is(err, zk.ErrNoNode), errors.Is(err, zk.ErrSessionExpired):
		l.lose(errGone)
	case l.left() <= 0:
		l.lose(noAnswer{l.s.term() * 3 / 4})
	case errors.Is(err, zk.ErrConnectionClosed), errors.Is(err, zk.ErrNoServer), errors.Is(err, context.DeadlineExceeded),
		errors.As(err, new(net.Error)): // the library hands out the error of a write that did not go out whole
		return nil
	default:
		l.lose(err)
	}
	return l.Err()
}

func (l *lease) lose(why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return
	}
	l.ended, l.why = true, lostFor(l.name, "%w", why)
	close(l.lost)
	close(l.over)
}

// Confirm returns when the lease is good, or is lost.
func (l *lease) Confirm(ctx context.Context, holder json.RawMessage) error {
	do := l.look
	if holder != nil {
		l.mu.Lock()
		l.holder = holder
		l.mu.Unlock()
		do = func() error {
			stat, err := l.s.conn.Set(l.node, holder, AnyVersion)
			return l.mine(true, stat, err)
		}
	}
	for asked := holder == nil; ; {
		if err := l.gone(); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if asked && l.enough() {
			return nil
		}
		if l.left() <= 0 {
			return l.judge(context.DeadlineExceeded)
		}
		err := l.ask(ctx, do)
		if err == nil {
			asked = true
			continue
		}
		if ctx.Err() != nil {
			continue
		}
		if lost := l.judge(err); lost != nil {
			return lost
		}
		select {
		case <-time.After(askAgain):
		case <-ctx.Done():
		}
	}
}

func (l *lease) written() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.holder
}

// releaseTime is how long giving a lock back may take: then its session ends by itself.
const releaseTime = 2 * time.Second

// Release ends the session, and the lock's node with it.
func (l *lease) Release(ctx context.Context, keep bool) error {
	var err error
	if l.claims && l.Err() == nil {
		limited, cancel := context.WithTimeoutCause(ctx, releaseTime, noAnswer{releaseTime})
		defer cancel()
		do := l.removeClaim
		if keep {
			do = l.writeClaim
		}
		if err = l.ask(limited, do); err != nil {
			err = &steps.Error{Kind: "lock", Err: errors.Join(errors.New("give back the claim on lock "+l.name), err)}
		}
	}
	l.end()
	return err
}

// end ends what belongs to the lease.
func (l *lease) end() {
	l.mu.Lock()
	if !l.ended {
		l.ended = true
		close(l.over)
	}
	l.mu.Unlock()
	l.s.end()
	l.work.Wait()
}

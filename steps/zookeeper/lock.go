package zookeeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-zookeeper/zk"

	"runbook/steps"
)

// The nodes of a lock. NAME is the lock's, a character that a node's name cannot have as %XX:
//
//	/runner/locks/NAME               persistent, stays
//	/runner/locks/NAME/lock-<number> ephemeral, sequential: who has the lowest number has the lock, and its czxid is
//	                                 the fence. It holds the holder as JSON, and ends with the holder's session.
//	/runner/locks/NAME/claim         persistent: the claim of a run that keeps others out while no process of it runs.
//	                                 Only who has the lock writes and removes it, in one transaction with a check of
//	                                 its lock node.
//
// Nobody waits in a queue: who does not find itself lowest takes its node away again.
const (
	locksPath  = "/runner/locks"
	lockPrefix = "lock-"
	claimName  = "claim"
)

func lockDir(name string) string { return locksPath + "/" + escape(name) }

// escape makes a node's name of any text; . and .. are no names of nodes.
func escape(name string) string {
	switch {
	case name == "":
		return "%"
	case strings.Trim(name, ".") == "":
		return strings.ReplaceAll(name, ".", "%2E")
	}
	return url.PathEscape(name)
}

func unescape(node string) (string, error) {
	if node == "%" {
		return "", nil
	}
	return url.PathUnescape(node)
}

// Lock takes a lock, over a session that is the lock's alone: other calls drop theirs with an answer that does not come.
func (c *Client) Lock(ctx context.Context, req steps.LockRequest) (steps.Lease, error) {
	what := request{addr: c.Addr(), what: "lock", path: lockDir(req.Name), write: true}
	if c.access == steps.ReadOnly {
		return nil, refuse(what)
	}
	s, err := begin(c.cfg)
	if err != nil {
		return nil, steps.Errorf("address", "%s: %w", what, err)
	}
	l := &lease{name: req.Name, s: s, dir: c.cfg.Chroot + lockDir(req.Name), acl: c.lockACL(), holder: req.Holder, over: make(chan struct{}), lost: make(chan struct{})}
	if err := l.take(ctx, c.cfg, req); err != nil {
		l.end()
		var held *steps.HeldError
		switch {
		case errors.As(err, &held):
			return nil, held
		case ctx.Err() != nil:
			return nil, ended(ctx, what, true)
		case errors.As(err, new(noAnswer)):
			return nil, steps.Temporarily("timeout", fmt.Errorf("%s: %w", what, err))
		}
		return nil, judge(what, err, s.reached(0), s.dialError())
	}
	l.work.Go(l.keep)
	return l, nil
}

// lockACL lets everybody read who has a lock, and change it who logs in as this client does; anyone where it does not log in.
func (c *Client) lockACL() []zk.ACL {
	if c.cfg.Auth.Reveal() == "" {
		return zk.WorldACL(zk.PermAll)
	}
	return append(zk.AuthACL(zk.PermAll), zk.WorldACL(zk.PermRead)...)
}

// successorLook is how often it is looked whether a dead predecessor's session has ended.
const successorLook = 50 * time.Millisecond

// take makes the lock's node, and finds it to be the first.
func (l *lease) take(ctx context.Context, cfg Config, req steps.LockRequest) error {
	limit := cfg.Timeout
	if req.Successor {
		limit += 2 * cfg.Session // servers round up to their ticks, and begin anew when they start
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, noAnswer{limit})
	defer cancel()
	if err := l.ask(ctx, func() error { return l.s.login(cfg.Auth) }); err != nil {
		return err
	}
	if err := l.makeFolders(ctx, cfg.Chroot); err != nil {
		return err
	}
	// A look before the node is made: a node that is taken away again may for an instant keep somebody out for nothing.
	if err := l.first(ctx, req); err != nil {
		return err
	}
	err := l.ask(ctx, func() (err error) {
		l.node, err = l.s.conn.Create(l.dir+"/"+lockPrefix, req.Holder, zk.FlagEphemeral|zk.FlagSequence, l.acl)
		return err
	})
	if err != nil {
		return err
	}
	if err := l.first(ctx, req); err != nil {
		return err
	}
	err = l.ask(ctx, func() error {
		_, stat, err := l.s.conn.Get(l.node)
		if err == nil {
			l.fence, l.owner = stat.Czxid, stat.EphemeralOwner
		}
		return err
	})
	if err != nil || !req.Claim {
		return err
	}
	l.claims = true
	return l.ask(ctx, l.writeClaim)
}

func (l *lease) makeFolders(ctx context.Context, chroot string) error {
	path := chroot
	for _, name := range strings.Split(strings.TrimPrefix(l.dir, chroot+"/"), "/") {
		path += "/" + name
		err := l.ask(ctx, func() error {
			if there, _, err := l.s.conn.Exists(path); err != nil || there {
				return err
			}
			_, err := l.s.conn.Create(path, nil, 0, l.acl)
			return err
		})
		if err != nil && !errors.Is(err, zk.ErrNodeExists) {
			return err
		}
	}
	return nil
}

// first returns nil where no node is before the lease's own, and no other run has a claim. What was seen after the own
// node was made is all there is: a session sees its own writes, and with them all that came before.
func (l *lease) first(ctx context.Context, req steps.LockRequest) error {
	poll := time.NewTicker(successorLook)
	defer poll.Stop()
	for {
		var seen []string
		err := l.ask(ctx, func() (err error) {
			seen, _, err = l.s.conn.Children(l.dir)
			return err
		})
		if err != nil {
			return err
		}
		lowest := lowestLock(seen)
		if lowest == "" || l.dir+"/"+lowest == l.node {
			return l.unclaimed(ctx, seen, req.Run)
		}
		holder, there, err := l.read(ctx, lowest)
		switch {
		case err != nil:
			return err
		case !there: // gone meanwhile
			continue
		case !req.Successor || runOf(holder) != req.Run:
			return &steps.HeldError{Name: l.name, Holder: holder}
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// unclaimed returns nil where no other run has a claim.
func (l *lease) unclaimed(ctx context.Context, seen []string, run string) error {
	if !slices.Contains(seen, claimName) {
		return nil
	}
	claim, there, err := l.read(ctx, claimName)
	if err == nil && there && runOf(claim) != run {
		return &steps.HeldError{Name: l.name, Holder: claim, Claimed: true}
	}
	return err
}

func (l *lease) read(ctx context.Context, child string) (data []byte, there bool, err error) {
	err = l.ask(ctx, func() (err error) {
		data, _, err = l.s.conn.Get(l.dir + "/" + child)
		return err
	})
	if errors.Is(err, zk.ErrNoNode) {
		return nil, false, nil
	}
	return data, err == nil, err
}

// lowestLock is the node that has the lock; empty: none. Their numbers have ten digits.
func lowestLock(children []string) string {
	lowest := ""
	for _, child := range children {
		if strings.HasPrefix(child, lockPrefix) && (lowest == "" || child < lowest) {
			lowest = child
		}
	}
	return lowest
}

// runOf is the run that a holder names.
func runOf(holder []byte) string {
	var h struct {
		Run string `json:"run"`
	}
	_ = json.Unmarshal(holder, &h) // what somebody else has written there is of no run
	return h.Run
}

// writeClaim puts the holder into the claim, if the lock is still held.
func (l *lease) writeClaim() error {
	path := l.dir + "/" + claimName
	there, _, err := l.s.conn.Exists(path)
	if err != nil {
		return err
	}
	holder := l.written()
	var change any = &zk.CreateRequest{Path: path, Data: holder, Acl: l.acl}
	if there {
		change = &zk.SetDataRequest{Path: path, Data: holder, Version: AnyVersion}
	}
	return l.whileHeld(change)
}

func (l *lease) removeClaim() error {
	err := l.whileHeld(&zk.DeleteRequest{Path: l.dir + "/" + claimName, Version: AnyVersion})
	if errors.Is(err, zk.ErrNoNode) { // the claim's or the lock's: either way none of ours is left to remove
		return nil
	}
	return err
}

// whileHeld carries a change out together with a check that the lock's node is there: what a process sends that does
// not know yet that its session is over changes nothing.
func (l *lease) whileHeld(change any) error {
	answers, err := l.s.conn.Multi(&zk.CheckVersionRequest{Path: l.node, Version: AnyVersion}, change)
	for _, a := range answers {
		if err == nil && a.Error != nil {
			err = a.Error
		}
	}
	return err
}

// Locks gives the locks that are held or claimed, by name.
func (c *Client) Locks(ctx context.Context) ([]steps.LockState, error) {
	all, err := c.Node(ctx, locksPath)
	if err != nil {
		return nil, err
	}
	var list []steps.LockState
	for _, child := range all.Children {
		name, err := unescape(child)
		if err != nil {
			continue // not made by Lock
		}
		n, err := c.Node(ctx, locksPath+"/"+child)
		if err != nil {
			return nil, err
		}
		state := steps.LockState{Name: name, Claim: slices.Contains(n.Children, claimName)}
		for _, node := range []string{claimName, lowestLock(n.Children)} {
			if !slices.Contains(n.Children, node) {
				continue
			}
			h, err := c.Node(ctx, n.Path+"/"+node)
			if err != nil {
				return nil, err
			}
			if h.Exists {
				state.Holder, state.Live = h.Data, node != claimName
			} else if node == claimName {
				state.Claim = false
			}
		}
		if state.Live || state.Claim {
			list = append(list, state)
		}
	}
	slices.SortFunc(list, func(a, b steps.LockState) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

var (
	errGone     = errors.New("its session has ended") // at the server
	errReleased = errors.New("the lock was given back")
)

func lostFor(name string, format string, args ...any) error {
	return &steps.Error{Kind: "lock-lost", Err: fmt.Errorf("lock "+name+" is lost: "+format, args...)}
}

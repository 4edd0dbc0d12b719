package zookeeper

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"runbook/internal/simulate/clock"
)

// Stat is what ZooKeeper tells of a node. Times are milliseconds since 1970.
type Stat struct {
	Czxid, Mzxid                int64
	Ctime, Mtime                int64
	Version, Cversion, Aversion int32
	EphemeralOwner              int64
	DataLength, NumChildren     int32
	Pzxid                       int64
}

// CreateOptions say what kind of node is made. The zero value is a persistent one that everybody may use.
type CreateOptions struct {
	ACL        []ACL
	Owner      int64 // the session whose end removes the node; 0 for a persistent one
	Sequential bool  // a number of ten digits is added to the name
}

// AnyVersion matches every version of a node.
const AnyVersion = -1

// Tree is the data of a ZooKeeper in memory. Its methods are those of an administrator: no access list is asked.
type Tree struct {
	clock clock.Clock

	mu       sync.Mutex
	down     bool
	zxid     int64
	nodes    map[string]*node
	sessions map[int64]bool
	nextID   int64
	watches  watches
}

type node struct {
	data     []byte
	acl      []ACL
	stat     Stat // Cversion, DataLength and NumChildren are computed
	created  int32
	children map[string]bool
}

func (n *node) shown() Stat {
	s := n.stat
	s.NumChildren = int32(len(n.children))
	s.Cversion = 2*n.created - s.NumChildren // creations and removals
	s.DataLength = int32(len(n.data))
	return s
}

// NewTree gives the tree of a fresh server: the root and /zookeeper. c is the time of its nodes, the real one where nil.
func NewTree(c clock.Clock) *Tree {
	if c == nil {
		c = clock.New(1)
	}
	t := &Tree{clock: c, nodes: map[string]*node{}, sessions: map[int64]bool{}, nextID: 0x100000000000000, watches: newWatches()}
	t.nodes["/"] = &node{children: map[string]bool{"zookeeper": true}, acl: Open()}
	t.nodes["/zookeeper"] = &node{children: map[string]bool{"config": true, "quota": true}, acl: Open()}
	t.nodes["/zookeeper/config"] = &node{children: map[string]bool{}, acl: Open()}
	t.nodes["/zookeeper/quota"] = &node{children: map[string]bool{}, acl: Open()}
	return t
}

// Create makes a node below one that exists, and gives the path that it got.
func (t *Tree) Create(p string, data []byte, o CreateOptions) (string, error) {
	var made string
	err := t.write(nil, func(x *txn) (err error) {
		made, err = x.create(p, data, o)
		return err
	})
	return made, err
}

// Get gives a node's data.
func (t *Tree) Get(p string) ([]byte, Stat, error) {
	n, err := t.look(p)
	if err != nil {
		return nil, Stat{}, err
	}
	return n.data, n.stat, nil
}

// Children gives the names of a node's children, sorted.
func (t *Tree) Children(p string) ([]string, Stat, error) {
	n, err := t.look(p)
	if err != nil {
		return nil, Stat{}, err
	}
	return n.children, n.stat, nil
}

// Set replaces a node's data where it has that version.
func (t *Tree) Set(p string, data []byte, version int32) (Stat, error) {
	var s Stat
	err := t.write(nil, func(x *txn) (err error) {
		s, err = x.set(p, data, version)
		return err
	})
	return s, err
}

// Delete removes a node without children where it has that version.
func (t *Tree) Delete(p string, version int32) error {
	return t.write(nil, func(x *txn) error { return x.delete(p, version) })
}

// Put is Set, or Create with every missing parent: how a world is filled.
func (t *Tree) Put(p string, data []byte) error {
	if _, err := t.Set(p, data, AnyVersion); err != ErrNoNode {
		return err
	}
	if dir := path.Dir(p); dir != "/" {
		if _, err := t.look(dir); err == ErrNoNode {
			if err := t.Put(dir, nil); err != nil {
				return err
			}
		}
	}
	_, err := t.Create(p, data, CreateOptions{})
	return err
}

// Dump gives every node but /zookeeper, by path: what a test compares.
func (t *Tree) Dump() map[string]string {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := map[string]string{}
	for p, n := range t.nodes {
		if p != "/" && p != "/zookeeper" && !strings.HasPrefix(p, "/zookeeper/") {
			out[p] = string(n.data)
		}
	}
	return out
}

// SetDown makes every call fail with ErrConnectionLoss, as a server that is gone does.
func (t *Tree) SetDown(down bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.down = down
}

// OpenSession begins a session that owns ephemeral nodes until CloseSession.
func (t *Tree) OpenSession() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.nextID++
	t.zxid++
	t.sessions[t.nextID] = true
	return t.nextID
}

// CloseSession ends a session: its ephemeral nodes are removed. It says whether there was one.
func (t *Tree) CloseSession(id int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.sessions[id] {
		return false
	}
	x := t.begin()
	delete(t.sessions, id)
	var owned []string
	for p, n := range t.nodes {
		if n.stat.EphemeralOwner == id {
			owned = append(owned, p)
		}
	}
	slices.Sort(owned)
	for _, p := range owned {
		x.remove(p)
	}
	x.commit()
	return true
}

// seen is a copy of a node, safe to keep.
type seen struct {
	data     []byte
	acl      []ACL
	stat     Stat
	children []string
}

func (t *Tree) look(p string) (seen, error) { return t.read(p, nil) }

// read looks at a node; allowed may refuse it, and then is called under the lock as a watch may be set in it.
func (t *Tree) read(p string, allowed func(*node) error) (seen, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.down {
		return seen{}, ErrConnectionLoss
	}
	if !validPath(p, false) {
		return seen{}, ErrBadArguments
	}
	n := t.nodes[p]
	if allowed != nil {
		if err := allowed(n); err != nil {
			return seen{}, err
		}
	}
	if n == nil {
		return seen{}, ErrNoNode
	}
	return seen{slices.Clone(n.data), slices.Clone(n.acl), n.shown(), slices.Sorted(maps.Keys(n.children))}, nil
}

// write runs f as one transaction: all of it or nothing. ids are who asks; nil may do anything.
func (t *Tree) write(ids []ID, f func(*txn) error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.down {
		return ErrConnectionLoss
	}
	x := t.begin()
	x.ids = ids
	if err := f(x); err != nil {
		x.rollback()
		return err
	}
	x.commit()
	return nil
}

// lastZxid is the number of the last write.
func (t *Tree) lastZxid() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.zxid
}

// txn is one write to the tree, under its lock: it has one zxid, can be taken back, and tells watchers only when it is done.
type txn struct {
	*Tree
	ids    []ID // nil is an administrator
	now    int64
	undo   []func()
	events []event
}

func (t *Tree) begin() *txn {
	t.zxid++
	return &txn{Tree: t, now: t.clock.Now().UnixMilli()}
}

func (x *txn) rollback() {
	for _, f := range slices.Backward(x.undo) {
		f()
	}
}

func (x *txn) commit() {
	for _, e := range x.events {
		x.watches.fire(e)
	}
}

func (x *txn) create(p string, data []byte, o CreateOptions) (string, error) {
	if !validPath(p, o.Sequential) || p == "/" {
		return "", ErrBadArguments
	}
	acl, err := x.fix(o.ACL)
	if err != nil {
		return "", err
	}
	dir := path.Dir(p)
	if strings.HasSuffix(p, "/") { // a sequential node without a name of its own
		dir = strings.TrimSuffix(p, "/")
	}
	if dir == "" {
		dir = "/"
	}
	parent := x.nodes[dir]
	if parent == nil {
		return "", ErrNoNode
	}
	if err := x.check(parent, PermCreate); err != nil {
		return "", err
	}
	if o.Sequential {
		p += fmt.Sprintf("%010d", parent.created)
	}
	if x.nodes[p] != nil {
		return "", ErrNodeExists
	}
	if parent.stat.EphemeralOwner != 0 {
		return "", ErrNoChildrenForEphemerals
	}
	before := *parent
	x.undo = append(x.undo, func() {
		delete(x.nodes, p)
		delete(parent.children, path.Base(p))
		parent.created, parent.stat.Pzxid = before.created, before.stat.Pzxid
	})
	parent.children[path.Base(p)] = true
	parent.created++
	parent.stat.Pzxid = x.zxid
	x.nodes[p] = &node{data: slices.Clone(data), acl: acl, children: map[string]bool{}, stat: Stat{
		Czxid: x.zxid, Mzxid: x.zxid, Pzxid: x.zxid, Ctime: x.now, Mtime: x.now, EphemeralOwner: o.Owner,
	}}
	x.events = append(x.events, event{nodeCreated, p}, event{nodeChildrenChanged, dir})
	return p, nil
}

func (x *txn) set(p string, data []byte, version int32) (Stat, error) {
	n, err := x.at(p, PermWrite)
	if err != nil {
		return Stat{}, err
	}
	if version != AnyVersion && version != n.stat.Version {
		return Stat{}, ErrBadVersion
	}
	before := *n
	x.undo = append(x.undo, func() { n.data, n.stat = before.data, before.stat })
	n.data = slices.Clone(data)
	n.stat.Version++
	n.stat.Mzxid, n.stat.Mtime = x.zxid, x.now
	x.events = append(x.events, event{nodeDataChanged, p})
	return n.shown(), nil
}

func (x *txn) setACL(p string, acl []ACL, version int32) (Stat, error) {
	acl, err := x.fix(acl)
	if err != nil {
		return Stat{}, err
	}
	n, err := x.at(p, PermAdmin)
	if err != nil {
		return Stat{}, err
	}
	if version != AnyVersion && version != n.stat.Aversion {
		return Stat{}, ErrBadVersion
	}
	n.acl = acl
	n.stat.Aversion++
	return n.shown(), nil
}

func (x *txn) delete(p string, version int32) error {
	if !validPath(p, false) || p == "/" || p == "/zookeeper" || path.Dir(p) == "/zookeeper" {
		return ErrBadArguments
	}
	n := x.nodes[p]
	if n == nil {
		return ErrNoNode
	}
	if err := x.check(x.nodes[path.Dir(p)], PermDelete); err != nil {
		return err
	}
	if version != AnyVersion && version != n.stat.Version {
		return ErrBadVersion
	}
	if len(n.children) > 0 {
		return ErrNotEmpty
	}
	x.remove(p)
	return nil
}

func (x *txn) checkVersion(p string, version int32) error {
	n, err := x.at(p, PermRead)
	if err != nil {
		return err
	}
	if version != AnyVersion && version != n.stat.Version {
		return ErrBadVersion
	}
	return nil
}

func (x *txn) remove(p string) {
	n, dir := x.nodes[p], path.Dir(p)
	parent := x.nodes[dir]
	pzxid := parent.stat.Pzxid
	x.undo = append(x.undo, func() {
		x.nodes[p] = n
		parent.children[path.Base(p)] = true
		parent.stat.Pzxid = pzxid
	})
	delete(x.nodes, p)
	delete(parent.children, path.Base(p))
	parent.stat.Pzxid = x.zxid
	x.events = append(x.events, event{nodeDeleted, p}, event{nodeChildrenChanged, dir})
}

func (x *txn) at(p string, perm int32) (*node, error) {
	if !validPath(p, false) {
		return nil, ErrBadArguments
	}
	n := x.nodes[p]
	if n == nil {
		return nil, ErrNoNode
	}
	return n, x.check(n, perm)
}

// validPath is the server's own rule for names.
func validPath(p string, sequential bool) bool {
	if sequential {
		p += "1"
	}
	if p == "/" {
		return true
	}
	if !strings.HasPrefix(p, "/") {
		return false
	}
	for name := range strings.SplitSeq(p[1:], "/") {
		if name == "" || name == "." || name == ".." || strings.ContainsFunc(name, forbidden) {
			return false
		}
	}
	return true
}

func forbidden(r rune) bool {
	return r < 0x20 || r >= 0x7f && r <= 0x9f || r >= 0xd800 && r <= 0xf8ff || r >= 0xfff0 && r <= 0xffff
}

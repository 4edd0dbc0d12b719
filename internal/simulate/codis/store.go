package codis

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"sync"

	"runbook/internal/simulate/zookeeper"
)

// Store is the coordinator; a *zookeeper.Tree is one.
type Store interface {
	Create(path string, data []byte, o zookeeper.CreateOptions) (string, error)
	Get(path string) ([]byte, zookeeper.Stat, error)
	Set(path string, data []byte, version int32) (zookeeper.Stat, error)
	Delete(path string, version int32) error
	Children(path string) ([]string, zookeeper.Stat, error)
	OpenSession() int64
	CloseSession(id int64) bool
}

// store is the part of the coordinator that one product uses. After cut nothing is written any more, so a process that was killed
// leaves what it had written and no more.
type store struct {
	Store
	product string

	mu  sync.Mutex
	off bool
}

// What a leaf allows: read, write and administer; directories allow everything.
const leafPerms = zookeeper.PermRead | zookeeper.PermWrite | zookeeper.PermAdmin

// LockPath is the node that a dashboard holds while it is online.
func LockPath(product string) string { return "/codis3/" + product + "/topom" }

// SlotPath is the node of a slot's mapping. It exists from the slot's first assignment on.
func SlotPath(product string, id int) string {
	return fmt.Sprintf("/codis3/%s/slots/slot-%04d", product, id)
}

// GroupPath is the node of a group.
func GroupPath(product string, id int) string {
	return fmt.Sprintf("/codis3/%s/group/group-%04d", product, id)
}

// ProxyPath is the node of a proxy. It stays when the proxy dies.
func ProxyPath(product, token string) string { return "/codis3/" + product + "/proxy/proxy-" + token }

func sentinelPath(product string) string { return "/codis3/" + product + "/sentinel" }

func jodisPath(product, token string) string { return "/jodis/" + product + "/proxy-" + token }

func (s *store) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.off = true
}

// create makes a leaf and its parents. It fails where the leaf exists.
func (s *store) create(p string, v any, owner int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.off {
		return errEnded
	}
	return s.leaf(p, encode(v), owner)
}

func (s *store) leaf(p string, data []byte, owner int64) error {
	if err := s.mkdir(path.Dir(p)); err != nil {
		return err
	}
	acl := []zookeeper.ACL{{Perms: leafPerms, ID: zookeeper.ID{Scheme: "world", Name: "anyone"}}}
	_, err := s.Create(p, data, zookeeper.CreateOptions{ACL: acl, Owner: owner})
	return err
}

func (s *store) mkdir(p string) error {
	if p == "/" {
		return nil
	}
	_, _, err := s.Get(p)
	if err == nil || !errors.Is(err, zookeeper.ErrNoNode) {
		return err
	}
	if err := s.mkdir(path.Dir(p)); err != nil {
		return err
	}
	_, err = s.Create(p, nil, zookeeper.CreateOptions{ACL: zookeeper.Open()})
	if errors.Is(err, zookeeper.ErrNodeExists) {
		return nil
	}
	return err
}

// update writes a leaf, and makes it where it is missing.
func (s *store) update(p string, v any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.off {
		return errEnded
	}
	data := encode(v)
	if _, _, err := s.Get(p); errors.Is(err, zookeeper.ErrNoNode) {
		if err := s.leaf(p, data, 0); err != nil && !errors.Is(err, zookeeper.ErrNodeExists) {
			return err
		}
	} else if err != nil {
		return err
	}
	_, err := s.Set(p, data, zookeeper.AnyVersion) // a new leaf too: its version is 1 after that
	return err
}

// remove deletes a leaf; one that is missing is as good.
func (s *store) remove(p string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.off {
		return errEnded
	}
	if err := s.Delete(p, zookeeper.AnyVersion); err != nil && !errors.Is(err, zookeeper.ErrNoNode) {
		return err
	}
	return nil
}

// load reads a leaf into v and says whether there is one.
func (s *store) load(p string, v any) (bool, error) {
	b, _, err := s.Get(p)
	if errors.Is(err, zookeeper.ErrNoNode) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, json.Unmarshal(b, v)
}

// loadAll reads every leaf of a directory.
func loadAll[T any](s *store, dir string) ([]*T, error) {
	names, _, err := s.Children(dir)
	if errors.Is(err, zookeeper.ErrNoNode) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []*T
	for _, name := range names {
		v := new(T)
		found, err := s.load(dir+"/"+name, v)
		if err == nil && !found {
			err = zookeeper.ErrNoNode
		}
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

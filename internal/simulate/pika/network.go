package pika

import (
	"errors"
	"fmt"
	"sync"
)

// Network is where the servers of one world find each other by address. A server whose address is not in it cannot be
// reached by another: it behaves as a host that is down, whatever really listens there.
type Network struct {
	mu      sync.Mutex
	servers map[string]*Server // by every address that means it
	links   map[[2]*Server]link
}

// link is what is wrong between two servers, whichever of them calls.
type link int

const (
	sound   link = iota
	dropped      // the connection broke, and neither side has noticed
	severed      // nothing goes through
)

// NewNetwork gives an empty one.
func NewNetwork() *Network {
	return &Network{servers: map[string]*Server{}, links: map[[2]*Server]link{}}
}

func (n *Network) add(s *Server, addrs ...string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range addrs {
		if other, ok := n.servers[a]; ok && other != s {
			return fmt.Errorf("address %s belongs to %s already", a, other.opts.Name)
		}
	}
	for _, a := range addrs {
		n.servers[a] = s
	}
	return nil
}

func (n *Network) remove(s *Server) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for a, other := range n.servers {
		if other == s {
			delete(n.servers, a)
		}
	}
}

// Lookup finds the server that an address means, its real one or the one it announces; nil where there is none.
func (n *Network) Lookup(addr string) *Server {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.servers[addr]
}

// Cut lets nothing through between two servers until Mend. Clients reach both.
func (n *Network) Cut(a, b *Server) {
	n.set(a, b, severed)
	a.forgetMessages(b)
	b.forgetMessages(a)
}

// Drop breaks the replication connections between two servers once. As with the real ones neither side notices: both say
// that they are connected while the lag grows, until the timeout of 20 s; then the replica connects again.
func (n *Network) Drop(a, b *Server) {
	n.set(a, b, dropped)
	a.forgetMessages(b)
	b.forgetMessages(a)
}

// Mend undoes Cut and Drop.
func (n *Network) Mend(a, b *Server) { n.set(a, b, sound) }

func (n *Network) set(a, b *Server, l link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, pair := range [][2]*Server{{a, b}, {b, a}} {
		if l == sound {
			delete(n.links, pair)
		} else {
			n.links[pair] = l
		}
	}
}

var errRefused = errors.New("connection refused")

// reach finds who an address means. A new connection mends what was dropped; messages on an old one get lost there.
func (n *Network) reach(from *Server, addr string, dial bool) (*Server, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.servers[addr]
	if s == nil || s == from || !s.up.Load() {
		return nil, errRefused
	}
	switch l := n.links[[2]*Server{from, s}]; {
	case l == severed, l == dropped && !dial:
		return nil, errRefused
	case l == dropped:
		delete(n.links, [2]*Server{from, s})
		delete(n.links, [2]*Server{s, from})
	}
	return s, nil
}

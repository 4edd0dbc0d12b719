package redis

import (
	"fmt"
	"slices"
	"sync"
)

// Network is where the servers of one world find each other by address. A server whose address is not in it cannot be
// reached by REPLICAOF: it behaves as a host that is down, whatever really listens there.
type Network struct {
	mu      sync.Mutex
	servers map[string]*Server // by every address that means it
	cut     map[[2]*Server]bool
}

// NewNetwork gives an empty one.
func NewNetwork() *Network {
	return &Network{servers: map[string]*Server{}, cut: map[[2]*Server]bool{}}
}

func (n *Network) add(s *Server, addrs ...string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range addrs {
		if other, ok := n.servers[a]; ok && other != s {
			return fmt.Errorf("address %s belongs to %s already", a, other.name)
		}
	}
	for _, a := range addrs {
		if a != "" {
			n.servers[a] = s
		}
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

// Lookup finds the server that an address means, its real one or the one it announces.
func (n *Network) Lookup(addr string) *Server {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.servers[addr]
}

// Cut drops the replication link between two servers, whichever is the master, and keeps it down until Mend. Clients reach both.
func (n *Network) Cut(a, b *Server) {
	n.mu.Lock()
	n.cut[[2]*Server{a, b}], n.cut[[2]*Server{b, a}] = true, true
	n.mu.Unlock()
	a.dropLinks(b)
	b.dropLinks(a)
}

// Drop breaks the link once; the replica connects again.
func (n *Network) Drop(a, b *Server) {
	a.dropLinks(b)
	b.dropLinks(a)
}

// Mend undoes Cut.
func (n *Network) Mend(a, b *Server) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.cut, [2]*Server{a, b})
	delete(n.cut, [2]*Server{b, a})
}

func (n *Network) reach(from *Server, addr string) (*Server, error) {
	n.mu.Lock()
	s := n.servers[addr]
	cut := n.cut[[2]*Server{from, s}]
	n.mu.Unlock()
	if s == nil || cut || !s.Alive() {
		return nil, fmt.Errorf("%s: connection refused", addr)
	}
	return s, nil
}

func (s *Server) dropLinks(peer *Server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range slices.Clone(s.links) {
		if l.replica == peer {
			l.close()
		}
	}
}

package zookeeper

import (
	"fmt"
	"slices"
	"strings"
)

const version = "3.8.0-5a02a05eddb59aee6ac762f7ea82e92a68eb9c0f, built on 2022-02-25 08:49 UTC"

// word answers one of the four-letter words, where it is allowed.
func (s *Server) word(w string, c *connection) string {
	if !slices.Contains(s.opts.Words, w) && !slices.Contains(s.opts.Words, "*") {
		return w + " is not executed because it is not in the whitelist.\n"
	}
	s.tree.mu.Lock()
	zxid, nodes := s.tree.zxid, len(s.tree.nodes)+1 // the real one counts the root twice
	s.tree.mu.Unlock()
	c.life.mu.Lock()
	var clients []string
	for c := range c.life.conns {
		clients = append(clients, fmt.Sprintf(" /%s[1](queued=0,recved=0,sent=0)\n", c.nc.RemoteAddr()))
	}
	c.life.mu.Unlock()
	slices.Sort(clients)
	head := "Zookeeper version: " + version + "\n"
	rest := fmt.Sprintf("Latency min/avg/max: 0/0.0/0\nReceived: 0\nSent: 0\nConnections: %d\nOutstanding: 0\nZxid: 0x%x\nMode: standalone\nNode count: %d\n",
		len(clients), zxid, nodes)
	switch w {
	case "ruok":
		return "imok"
	case "srvr":
		return head + rest
	case "stat":
		return head + "Clients:\n" + strings.Join(clients, "") + "\n" + rest
	}
	return ""
}

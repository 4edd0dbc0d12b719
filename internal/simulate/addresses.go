package simulate

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
)

// prepareAll gives every system its address, also an absent one: it must be known before the system is there.
func (w *World) prepareAll() error {
	var taken reserved
	defer taken.free()
	for _, name := range w.Names() {
		if w.Kind(name) == "host" {
			continue
		}
		if err := w.prepare(w.systems[name], &taken); err != nil {
			return fmt.Errorf("system %s: %w", name, err)
		}
	}
	return nil
}

func (w *World) prepare(s *system, taken *reserved) error {
	room := 0
	if s.spec.Kind == "pika" {
		room = rsyncDistance
	}
	var err error
	if again := w.opts.Listens[s.name]; again != "" && !w.declares(again) && taken.take(again, room) == nil {
		s.actual = again
	} else if s.actual, err = taken.addr(room, w.declares); err != nil {
		return err
	}
	s.declared = cmp.Or(s.spec.Addr, w.opts.Addrs[s.name], s.actual)
	if _, _, err := net.SplitHostPort(s.declared); err != nil {
		return fmt.Errorf("address %q: %w", s.declared, err)
	}
	for _, other := range w.systems {
		if other != s && other.declared == s.declared {
			return fmt.Errorf("system %s has the same address, %s", other.name, s.declared)
		}
	}
	return nil
}

// reserved holds ports until all are found.
type reserved []net.Listener

// Ports are taken from below those that systems give to outgoing connections: one that is not listened on for a while,
// because its system is down or absent, must still be free when it comes back.
const firstPort, lastPort = 10000, 31000

// addr finds a port that nobody listens on, nor on the one that is so much greater, if room is not 0, and that means
// nothing else yet.
func (r *reserved) addr(room int, means func(addr string) bool) (string, error) {
	var err error
	for range 100 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(firstPort+rand.IntN(lastPort-firstPort)))
		if means(addr) {
			continue
		}
		if err = r.take(addr, room); err == nil {
			return addr, nil
		}
	}
	return "", fmt.Errorf("no free port was found: %w", err)
}

// take reserves an address, and the port that is so much greater, if room is not 0.
func (r *reserved) take(addr string, room int) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	*r = append(*r, l)
	if room != 0 {
		if l, err = net.Listen("tcp", away(addr, room)); err != nil {
			return err
		}
		*r = append(*r, l)
	}
	return nil
}

// declares says whether an address is a system's declared one, or beside it.
func (w *World) declares(addr string) bool {
	for name, s := range w.systems {
		declared := cmp.Or(s.spec.Addr, w.opts.Addrs[name])
		if declared != "" && (addr == declared || slices.ContainsFunc(s.besides(), func(d int) bool { return addr == away(declared, d) })) {
			return true
		}
	}
	return false
}

func (r *reserved) free() {
	for _, l := range *r {
		_ = l.Close()
	}
}

// away is the address with a port that is so much greater.
func away(addr string, distance int) string {
	h, port, _ := net.SplitHostPort(addr)
	n, _ := strconv.Atoi(port)
	return net.JoinHostPort(h, strconv.Itoa(n+distance))
}

// shown is the address that clients see.
func (w *World) shown(s *system) string {
	if w.opts.KeepAddrs {
		return s.declared
	}
	return s.actual
}

// aliases are further names of a system's declared address.
func aliases(s *system) []string {
	all := []string{s.declared}
	if h, port, _ := net.SplitHostPort(s.declared); h == "127.0.0.1" {
		all = append(all, "localhost:"+port)
	}
	return all
}

// Addr is the address that replaces a target's: where the system really listens, "" for a name that the world has not.
func (w *World) Addr(name string) string {
	if s := w.systems[name]; s != nil {
		return s.actual
	}
	return ""
}

// Translate maps a declared address to the real one and a real one to the declared; any other stays.
func (w *World) Translate(addr string) string {
	for _, s := range w.systems {
		switch {
		case addr == "":
		case addr == s.declared:
			return s.actual
		case addr == s.actual:
			return s.declared
		}
	}
	return addr
}

// Resolve gives the real address that a declared or a real one means; ok is false for one that is not of this world.
func (w *World) Resolve(addr string) (actual string, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if rest, local := strings.CutPrefix(addr, "localhost:"); local {
		addr = "127.0.0.1:" + rest
	}
	for _, s := range w.systems {
		if addr == s.actual || addr == s.declared {
			return s.actual, s.actual != ""
		}
		if real, ok := s.more[addr]; ok {
			return real, true
		}
		for _, d := range s.besides() {
			if addr == away(s.actual, d) || addr == away(s.declared, d) {
				return away(s.actual, d), true
			}
		}
	}
	return "", false
}

// besides are the ports that a system has at fixed distances from its own.
func (s *system) besides() []int {
	if s.spec.Kind != "pika" {
		return nil
	}
	return append(pikaPorts(s.spec.Release), rsyncDistance)
}

// Dial connects to a system of this world, by its declared or its real address, and to nothing else.
func (w *World) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	actual, ok := w.Resolve(addr)
	if !ok {
		return nil, fmt.Errorf("dial %s %s: no system of this sandbox has this address", network, addr)
	}
	return (&net.Dialer{}).DialContext(ctx, network, actual)
}

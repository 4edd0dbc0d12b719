package lab

import (
	"context"
	"fmt"
	"hash/crc32"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"runbook/internal/simulate/resp"
	"runbook/schema"
)

// settings keep a Pika small: with its own 256 MB of write buffer the first write to each slot takes 280 MB of disk. The
// smaller it is the more often it is flushed: with one thread for that, of all slots together, writers stand still.
// Without network-interface it takes the address of the default route for its own, and its replicas were told 127.0.0.1.
var settings = map[string]string{
	"instance-mode": "sharding", "default-slot-num": "1024", "network-interface": "lo", "write-buffer-size": "2097152",
	"sync-thread-num": "6", "maxclients": "1000", "thread-num": "1", "thread-pool-size": "2", "max-background-compactions": "4", "max-background-flushes": "4",
}

// pika is one server, whoever started it.
type pika struct {
	s       *site
	addr    string
	dir     string
	process *process // nil: a runbook starts it
}

// place reserves a directory and an address; the rsync daemon and replication need the ports beside.
func (s *site) place(name string) *pika {
	s.t.Helper()
	return &pika{s: s, addr: loopback(free.take(s.t, 1000, 2000)), dir: s.path(name)}
}

// pika starts a server with nothing in it.
func (s *site) pika(name string) *pika {
	s.t.Helper()
	p := s.place(name)
	_, port, _ := net.SplitHostPort(p.addr)
	conf := fmt.Sprintf("port : %s\ndb-path : %[2]s/db/\nlog-path : %[2]s/log/\ndump-path : %[2]s/dump/\ndb-sync-path : %[2]s/dbsync/\ndaemonize : no\n", port, p.dir)
	for name, value := range settings {
		conf += name + " : " + value + "\n"
	}
	p.process = s.start(name, lab.pika.path, "-c", s.write(name+"/pika.conf", conf))
	p.process.ready(func() bool { return p.ask("PING") == "PONG" })
	return p
}

// ask sends a command and gives the answer as text; empty where there is none.
func (p *pika) ask(args ...string) string {
	v, err := p.do(args...)
	if err != nil {
		return ""
	}
	return v.Str
}

func (p *pika) do(args ...string) (resp.Value, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := resp.Dial(ctx, p.addr)
	if err != nil {
		return resp.Value{}, err
	}
	defer c.Close()
	return c.Do(ctx, args...)
}

func (p *pika) must(args ...string) string {
	p.s.t.Helper()
	v, err := p.do(args...)
	if err != nil {
		p.s.t.Fatalf("%v on %s: %v", args, p.addr, err)
	}
	return v.Str
}

// make opens slots.
func (p *pika) make(slots schema.Slots) {
	p.s.t.Helper()
	p.must("pkcluster", "addslots", slots.String())
}

// follow makes slots that nobody has written to yet follow another server's, and waits until both sides say that they do.
// A slot whose request was answered before the server had noted that it waits for the answer waits for ever: it is
// asked for again once its master has given it up.
func (p *pika) follow(master *pika, slots schema.Slots) {
	p.s.t.Helper()
	host, port, _ := net.SplitHostPort(master.addr)
	p.must("pkcluster", "slotsslaveof", host, port, slots.String())
	again := time.Now().Add(forgotten)
	until(p.s.t, p.addr+" follows "+master.addr, func() bool {
		var lost []int
		for id, its := range master.slots(slots) {
			if !strings.Contains(its, p.addr+"\r\n  replication_status: SlaveBinlogSync") {
				lost = append(lost, id)
			}
		}
		if len(lost) > 0 && time.Now().After(again) {
			p.must("pkcluster", "slotsslaveof", host, port, set(lost).String())
			again = time.Now().Add(forgotten)
		}
		return len(lost) == 0
	})
}

// forgotten is when a master has given up a replica that does not answer: 20 s, and some.
const forgotten = 25 * time.Second

// slots gives what the server says of each slot.
func (p *pika) slots(slots schema.Slots) map[int]string {
	all := map[int]string{}
	for _, id := range slots {
		all[id] = ""
	}
	for text := range strings.SplitSeq(p.ask("pkcluster", "info", "slot", slots.String()), "(db0:") {
		number, rest, _ := strings.Cut(text, ")")
		if id, err := strconv.Atoi(number); err == nil {
			all[id] = rest
		}
	}
	return all
}

// has counts the slots of a set that the server holds.
func (p *pika) has(slots schema.Slots) int {
	n := 0
	for _, text := range p.slots(slots) {
		if text != "" {
			n++
		}
	}
	return n
}

// slotOf is the slot of a key without a tag, or of a tag, as Codis and Pika count.
func slotOf(key string) int { return int(crc32.ChecksumIEEE([]byte(key)) % 1024) }

// tagOf gives a hash tag of a slot.
func tagOf(slot int) string {
	for i := 0; ; i++ {
		if tag := strconv.Itoa(i); slotOf(tag) == slot {
			return tag
		}
	}
}

func set(slots []int) schema.Slots {
	slices.Sort(slots)
	return slices.Compact(slots)
}

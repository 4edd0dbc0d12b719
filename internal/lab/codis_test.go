package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"runbook/steps/zookeeper/zktest"
)

// codis is one product: a dashboard and two proxies.
type codis struct {
	s         *site
	product   string
	addr      string // of the dashboard
	dashboard *process
	relay     *relay // before the dashboard; nil: none
	proxies   []*proxy
}

type proxy struct {
	*process
	addr  string // of clients
	admin string
	relay *relay // before its admin address; nil: none
}

var products atomic.Int64

// codis starts a product with two proxies, without a group. relayed: everybody comes to dashboard and proxies through relays.
func (s *site) codis(relayed bool) *codis {
	s.t.Helper()
	c := &codis{s: s, product: fmt.Sprintf("lab-%d", products.Add(1))}
	name, addr := coordinator(s)
	own := loopback(free.take(s.t))
	c.relay, c.addr = c.front(own, relayed)
	c.dashboard = s.start("dashboard", lab.dashboard.path, "--ncpu=1", "--log-level=INFO", "--host-admin="+c.addr, "--config="+
		s.write("dashboard.toml", fmt.Sprintf("coordinator_name = %q\ncoordinator_addr = %q\nproduct_name = %q\nadmin_addr = %q\nmigration_method = \"semi-async\"\n", name, addr, c.product, own)))
	c.online()
	for i := range 2 {
		c.proxies = append(c.proxies, c.proxy(i+1, relayed))
	}
	return c
}

// front gives the address at which others ask for what listens at own.
func (c *codis) front(own string, relayed bool) (*relay, string) {
	if !relayed {
		return nil, own
	}
	r := newRelay(c.s.t, own)
	return r, r.addr
}

// coordinator is a real ZooKeeper, or a directory where there is none.
func coordinator(s *site) (name, addr string) {
	s.t.Helper()
	if _, err := os.Stat(zktest.Jar); err != nil {
		s.t.Logf("there is no ZooKeeper here (make setup installs it): the coordinator is a directory")
		return "filesystem", s.path("coordinator")
	}
	return "zookeeper", lab.zookeeper.Start(s.t)
}

// online waits for a dashboard that has its lock: it answers before.
func (c *codis) online() {
	c.s.t.Helper()
	c.dashboard.ready(func() bool { return c.put("reload") == nil })
}

func (c *codis) proxy(n int, relayed bool) *proxy {
	c.s.t.Helper()
	name, own := fmt.Sprintf("proxy%d", n), loopback(free.take(c.s.t))
	p := &proxy{addr: loopback(free.take(c.s.t))}
	p.relay, p.admin = c.front(own, relayed)
	// With its default of 16 databases a proxy dials those that a Pika does not have, over and over.
	p.process = c.s.start(name, lab.proxy.path, "--ncpu=1", "--log-level=INFO", "--host-admin="+p.admin, "--config="+
		c.s.write(name+".toml", fmt.Sprintf("product_name = %q\nproto_type = \"tcp4\"\nproxy_addr = %q\nadmin_addr = %q\nbackend_number_databases = 1\nproxy_heap_placeholder = \"1mb\"\n", c.product, p.addr, own)))
	p.ready(func() bool { return c.put("proxy/create", p.admin) == nil })
	return p
}

// restartDashboard starts a dashboard that was killed: its lock is still there.
func (c *codis) restartDashboard() {
	c.s.t.Helper()
	if c.relay != nil {
		c.relay.open()
	}
	c.dashboard.restart("--remove-lock")
	c.online()
}

func (c *codis) xauth() string {
	sum := sha256.Sum256([]byte("Codis-XAuth-[" + c.product + "]"))
	return hex.EncodeToString(sum[:])[:32]
}

// put sends PUT /api/topom/WHAT/<xauth>/ARGS.
func (c *codis) put(what string, args ...string) error { return c.send(nil, what, args...) }

func (c *codis) send(body any, what string, args ...string) error {
	text := []byte{}
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return err
		}
	}
	url := "http://" + c.addr + "/api/topom/" + strings.Join(append([]string{what, c.xauth()}, args...), "/")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, url, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	said, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		return fmt.Errorf("PUT %s: %d %s", what, answer.StatusCode, bytes.TrimSpace(said))
	}
	return err
}

// group makes a group of servers, its master first.
func (c *codis) group(id int, servers ...*pika) {
	c.s.t.Helper()
	c.must(nil, "group/create", fmt.Sprint(id))
	for _, p := range servers {
		c.must(nil, "group/add", fmt.Sprint(id), p.addr)
	}
}

// assign maps all slots to a group, and has the group in step with the proxies.
func (c *codis) assign(group int) {
	c.s.t.Helper()
	var all []map[string]int
	for id := range 1024 {
		all = append(all, map[string]int{"id": id, "group_id": group})
	}
	c.must(all, "slots/assign")
	c.must(nil, "group/resync", fmt.Sprint(group))
}

func (c *codis) must(body any, what string, args ...string) {
	c.s.t.Helper()
	if err := c.send(body, what, args...); err != nil {
		c.s.t.Fatal(err)
	}
}

// route is what a proxy does with a slot.
type route struct {
	Backend string `json:"backend_addr"`
	Locked  bool   `json:"locked"`
}

// routes asks a proxy where it sends each slot.
func (p *proxy) routes() ([]route, error) {
	client := http.Client{Timeout: 2 * time.Second}
	answer, err := client.Get("http://" + p.admin + "/proxy/slots")
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	var all []route
	if err := json.NewDecoder(answer.Body).Decode(&all); err != nil {
		return nil, err
	}
	if len(all) != 1024 {
		return nil, fmt.Errorf("%d slots", len(all))
	}
	return all, nil
}

// served tells that every proxy sends every one of the slots to one of the addresses, and holds none. It gives the address.
func (c *codis) served(slots []int, addrs ...string) (string, bool) {
	at := ""
	for _, p := range c.proxies {
		all, err := p.routes()
		if err != nil {
			return "", false
		}
		for _, id := range slots {
			r := all[id]
			if at == "" {
				at = r.Backend
			}
			if r.Locked || r.Backend != at {
				return "", false
			}
		}
	}
	return at, len(addrs) == 0 || slices.Contains(addrs, at)
}

func (c *codis) awaitServed(t *testing.T, slots []int, addrs ...string) string {
	t.Helper()
	at := ""
	until(t, fmt.Sprintf("both proxies serve %d slots from %v", len(slots), addrs), func() (ok bool) {
		at, ok = c.served(slots, addrs...)
		return ok
	})
	return at
}

package codis_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"runbook/internal/simulate/clock"
	"runbook/internal/simulate/codis"
	"runbook/internal/simulate/resp"
	"runbook/internal/simulate/zookeeper"
)

// world is a product with two groups of one server each and as many proxies as asked for; slots 0-511 are in group 1, the others in group 2.
type world struct {
	testing.TB
	clock     clock.Clock
	tree      *zookeeper.Tree
	dashboard *codis.Dashboard
	proxies   []*codis.Proxy
	servers   []*server
}

func newWorld(t testing.TB, proxies int) *world { return newWorldAt(t, proxies, 20) }

// newWorldAt is newWorld where time goes speed times as fast.
func newWorldAt(t testing.TB, proxies int, speed float64) *world {
	t.Helper()
	w := &world{TB: t, clock: clock.New(speed)}
	w.tree = zookeeper.NewTree(w.clock)
	var err error
	if w.dashboard, err = codis.StartDashboard(codis.DashboardOptions{Store: w.tree, Clock: w.clock}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.dashboard.Close)
	w.servers = []*server{startServer(t), startServer(t)}
	for i, s := range w.servers {
		w.put(fmt.Sprintf("group/create/:xauth/%d", i+1), nil)
		w.put(fmt.Sprintf("group/add/:xauth/%d/%s", i+1, s.addr), nil)
	}
	for range proxies {
		w.proxy()
	}
	var slots []codis.SlotMapping
	for i := range codis.SlotCount {
		slots = append(slots, codis.SlotMapping{ID: i, GroupID: 1 + i/512})
	}
	w.assign(slots...)
	w.put("group/resync-all/:xauth", nil)
	return w
}

func (w *world) proxy() *codis.Proxy {
	w.Helper()
	p, err := codis.StartProxy(codis.ProxyOptions{Clock: w.clock, Store: w.tree})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(p.Close)
	w.put("proxy/create/:xauth/"+p.AdminAddr(), nil)
	w.proxies = append(w.proxies, p)
	return p
}

// put changes something as an administrator.
func (w *world) put(path string, body []byte) {
	w.Helper()
	if err := w.dashboard.Put("/api/topom/"+path, body); err != nil {
		w.Fatal(err)
	}
}

func (w *world) assign(slots ...codis.SlotMapping) {
	w.Helper()
	w.put("slots/assign/:xauth", encode(slots))
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// call is one HTTP request over the wire.
func (w *world) call(ctx context.Context, method, url string, body any) (int, []byte, error) {
	var r io.Reader
	if body != nil {
		r = bytes.NewReader(encode(body))
	}
	req, err := http.NewRequestWithContext(ctx, method, url, r)
	if err != nil {
		w.Fatal(err)
	}
	tr := &http.Transport{DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, b, err
}

// putDashboard changes something over the wire and gives the Cause, "" for success.
func (w *world) putDashboard(ctx context.Context, path string, body any) (string, error) {
	path = strings.ReplaceAll(path, ":xauth", w.dashboard.XAuth())
	status, b, err := w.call(ctx, "PUT", "http://"+w.dashboard.Addr()+"/api/topom/"+path, body)
	if err != nil || status == 200 {
		return "", err
	}
	var e struct{ Cause string }
	if err := json.Unmarshal(b, &e); err != nil {
		return fmt.Sprintf("%d %s", status, b), nil
	}
	return e.Cause, nil
}

// fill sends slots to one proxy over the wire.
func (w *world) fill(ctx context.Context, p *codis.Proxy, slots ...codis.Slot) error {
	status, b, err := w.call(ctx, "PUT", "http://"+p.AdminAddr()+"/api/proxy/fillslots/"+p.XAuth(), slots)
	if err == nil && status != 200 {
		err = fmt.Errorf("%d %s", status, b)
	}
	return err
}

// hold locks slots on a proxy, or opens them, and changes nothing else.
func (w *world) hold(p *codis.Proxy, locked bool, ids ...int) {
	w.Helper()
	if err := w.fill(w.Context(), p, holding(p, locked, ids...)...); err != nil {
		w.Fatal(err)
	}
}

func holding(p *codis.Proxy, locked bool, ids ...int) []codis.Slot {
	routes := p.Routes()
	var slots []codis.Slot
	for _, id := range ids {
		s := routes[id]
		s.Locked = locked
		slots = append(slots, s)
	}
	return slots
}

func (w *world) client(p *codis.Proxy) *resp.Conn {
	w.Helper()
	c, err := resp.Dial(w.Context(), p.Addr())
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { c.Close() })
	return c
}

// ask sends one command on a connection of its own and gives the answer, or the error, as text.
func (w *world) ask(p *codis.Proxy, line string) string {
	w.Helper()
	c := w.client(p)
	defer c.Close()
	v, err := c.Do(w.Context(), strings.Fields(line)...)
	if err != nil {
		return err.Error()
	}
	return v.String()
}

// until waits for something to become true; the test's own time limit ends it.
func (w *world) until(what string, f func() bool) {
	w.Helper()
	for limit := time.Now().Add(20 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			w.Fatalf("not within 20 s: %s", what)
		}
	}
}

// key gives a key of a slot.
func key(slot int) string {
	for i := 0; ; i++ {
		if k := fmt.Sprintf("k%d", i); codis.SlotOf(k) == slot {
			return k
		}
	}
}

package codis_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"runbook/internal/simulate/codis"
	"runbook/internal/simulate/resp"
	"runbook/internal/simulate/zookeeper"
)

// recording is one exchange with the real programs.
type recording struct {
	Name         string          `json:"name"`
	Host         string          `json:"host"`
	Method       string          `json:"method"`
	Path         string          `json:"path"`
	RequestBody  json.RawMessage `json:"request_body"`
	Status       int             `json:"status"`
	ContentType  *string         `json:"content_type"`
	ResponseBody json.RawMessage `json:"response_body"`
	Location     string          `json:"location"`
}

// deviations are the answers that are not as recorded, and why.
var deviations = map[string]string{
	"173-fe-list":            "codis-fe is not simulated: no migration talks to it",
	"174-fe-forward":         "codis-fe is not simulated",
	"175-fe-forward-put":     "codis-fe is not simulated",
	"176-fe-forward-unknown": "codis-fe is not simulated",
	"177-fe-error-through":   "codis-fe is not simulated",
}

// TestRecordings plays all requests that were recorded, in their order, to a world that is brought to the state in which each was made.
func TestRecordings(t *testing.T) {
	p := newPlay(t)
	exact, all := 0, recordings(t)
	for _, r := range all {
		if deviations[r.Name] != "" {
			continue
		}
		p.before(r)
		problems := p.play(r)
		for _, problem := range problems {
			t.Errorf("%s: %s", r.Name, problem)
		}
		if len(problems) == 0 {
			exact++
		}
	}
	if want := len(all) - len(deviations); len(all) != 185 || exact != want {
		t.Errorf("%d of %d answered as recorded, %d wanted", exact, len(all), want)
	}
}

func recordings(t testing.TB) []recording {
	t.Helper()
	f, err := os.Open("../../../testdata/recordings/codis/api.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []recording
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<22)
	for lines.Scan() {
		var r recording
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// play is the world of the recordings: three groups of two servers, later a fourth; two proxies, later a third; the addresses are the recorded ones.
type play struct {
	*world
	hand    *hand
	addrs   map[string]string // the real address of a recorded one
	second  *codis.Dashboard
	byAddr  map[string]*server
	blocked chan struct{} // while not nil: the source does not answer a round
}

var tokens = map[string]string{
	"127.0.0.1:11080": "990f169688b7668b7a6ab37e3f891bf3", "127.0.0.1:11081": "2f51e469e445cb18051e9a1f7047631c", "127.0.0.1:11082": "98d20b5d7cb30f528a43d6aa1f1405fc",
}

func newPlay(t *testing.T) *play {
	h := newHand()
	p := &play{world: &world{TB: t, clock: h, tree: zookeeper.NewTree(h)}, hand: h, addrs: map[string]string{}, byAddr: map[string]*server{}}
	p.dashboard = p.startDashboard("127.0.0.1:18080")
	for gid := 1; gid <= 3; gid++ {
		p.put(fmt.Sprintf("group/create/:xauth/%d", gid), nil)
		for i := 1; i <= 2; i++ {
			addr := fmt.Sprintf("127.0.0.1:71%d%d", gid, i)
			p.server(addr)
			p.put(fmt.Sprintf("group/add/:xauth/%d/%s", gid, addr), nil)
		}
		p.sync(fmt.Sprintf("127.0.0.1:71%d2", gid))
	}
	p.startProxy("127.0.0.1:11080", "127.0.0.1:19000")
	p.startProxy("127.0.0.1:11081", "127.0.0.1:19001")
	for _, proxy := range []string{"127.0.0.1:11080", "127.0.0.1:11081"} {
		p.put("proxy/create/:xauth/"+proxy, nil)
	}
	var slots []codis.SlotMapping
	for i := range codis.SlotCount {
		slots = append(slots, codis.SlotMapping{ID: i, GroupID: min(3, 1+i*3/1024)})
	}
	for i := range slots {
		slots[i].GroupID = map[bool]int{true: 1}[i < 342]
		if i >= 342 {
			slots[i].GroupID = 2 + map[bool]int{true: 1}[i >= 683]
		}
	}
	p.assign(slots...)
	p.put("group/resync-all/:xauth", nil)
	p.ask(p.proxies[0], "SET k v")
	p.ask(p.proxies[0], "GET k")
	p.tickUntil("everybody was asked", func(s string) bool {
		return strings.Count(s, `"unixtime"`) == 8 && strings.Count(s, `"raw"`) == 2
	})
	return p
}

func (p *play) startDashboard(addr string) *codis.Dashboard {
	p.Helper()
	d, err := codis.StartDashboard(codis.DashboardOptions{Announce: addr, Store: p.tree, Clock: p.clock, Dial: p.dial})
	if err != nil {
		p.Fatal(err)
	}
	p.Cleanup(d.Close)
	p.addrs[addr] = d.Addr()
	return d
}

func (p *play) startProxy(admin, addr string) *codis.Proxy {
	p.Helper()
	x, err := codis.StartProxy(codis.ProxyOptions{Announce: addr, AnnounceAdmin: admin, Token: tokens[admin], Store: p.tree, Clock: p.clock, Dial: p.dial})
	if err != nil {
		p.Fatal(err)
	}
	p.Cleanup(x.Close)
	p.addrs[admin] = x.AdminAddr()
	p.proxies = append(p.proxies, x)
	return x
}

func (p *play) server(addr string) *server {
	s := startServer(p.TB)
	p.addrs[addr], p.byAddr[addr] = s.addr, s
	return s
}

// dial connects to a recorded address; nobody listens where the world has none.
func (p *play) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	to, ok := p.addrs[addr]
	if !ok {
		ip, _ := net.ResolveTCPAddr(network, addr)
		return nil, &net.OpError{Op: "dial", Net: network, Addr: ip, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	c, err := (&net.Dialer{}).DialContext(ctx, network, to)
	var refused *net.OpError
	if errors.As(err, &refused) {
		refused.Addr, _ = net.ResolveTCPAddr(network, addr)
	}
	return c, err
}

// tickUntil lets seconds pass until the dashboard's stats are as wanted.
func (p *play) tickUntil(what string, f func(stats string) bool) {
	p.Helper()
	p.until(what, func() bool {
		_, b := p.dashboard.Do("GET", "/topom/stats", nil)
		if f(string(b)) {
			return true
		}
		p.hand.advance(time.Second)
		time.Sleep(2 * time.Millisecond)
		return false
	})
}

func (p *play) sync(addr string) {
	p.Helper()
	p.put("group/action/create/:xauth/"+addr, nil)
	p.synced(addr)
}

func (p *play) synced(addr string) {
	p.Helper()
	p.tickUntil(addr+" synced", func(string) bool {
		for path, data := range p.tree.Dump() {
			if _, rest, ok := strings.Cut(data, addr); ok && strings.Contains(path, "/group/") {
				head, _, _ := strings.Cut(rest, "replica_group")
				return strings.Contains(head, `"synced"`)
			}
		}
		return false
	})
}

// block has the source of a migration not answer until it is let go.
func (p *play) block(addr string) {
	stop := make(chan struct{})
	p.blocked = stop
	p.byAddr[addr].script(func(args []string) (resp.Value, bool) {
		if args[0] != "SLOTSMGRTTAGSLOT-ASYNC" {
			return resp.Value{}, false
		}
		<-stop
		return resp.List(resp.Number(0), resp.Number(0)), true
	})
}

func (p *play) idle() {
	p.Helper()
	p.tickUntil("no action is left", func(s string) bool { return !strings.Contains(s, "target_id") })
}

// before brings the world to where a request was made.
func (p *play) before(r recording) {
	p.Helper()
	switch r.Name {
	case "029-group-add-server":
		p.server("127.0.0.1:7141")
		p.server("127.0.0.1:7142")
	case "032-group-add-unknown-group":
		s := p.server("127.0.0.1:7143")
		p.addrs["localhost:7143"] = s.addr
	case "035-group-add-plain-redis7":
		p.server("127.0.0.1:7199").script(func(args []string) (resp.Value, bool) {
			return resp.Errorf("ERR unknown command 'SLOTSINFO', with args beginning with: "), args[0] == "SLOTSINFO"
		})
	case "036-group-info-server":
		p.put("group/del/:xauth/9/localhost:7143", nil)
		p.put("group/del/:xauth/9/127.0.0.1:7143", nil)
	case "040-stats-after-sync":
		p.synced("127.0.0.1:7142")
		p.tickUntil("the new servers were asked", func(s string) bool { return strings.Count(s, `"unixtime"`) == 10 })
	case "054-replica-groups-enable":
		p.sync("127.0.0.1:7141")
	case "083-stats-pending":
		p.put("slots/action/interval/:xauth/500000", nil)
	case "086-slot-enable":
		for sid := range 3 {
			p.put(fmt.Sprintf("slots/action/remove/:xauth/%d", sid), nil)
		}
	case "087-stats-migrating":
		p.block("127.0.0.1:7111")
		p.tickUntil("a round runs", func(s string) bool { return strings.Contains(s, `"executor": 1`) })
	case "090-stats-after-migration":
		close(p.blocked)
		p.put("slots/action/interval/:xauth/0", nil)
		p.idle()
		p.assign(codis.SlotMapping{ID: 0, GroupID: 1}, codis.SlotMapping{ID: 1, GroupID: 1}, codis.SlotMapping{ID: 2, GroupID: 1})
		p.put("group/resync-all/:xauth", nil)
		p.put("group/promote/:xauth/9/127.0.0.1:7141", nil)
		p.sync("127.0.0.1:7142")
	case "106-slots-rebalance-plan":
		p.idle()
	case "109-slots-assign-over-migrating":
		p.put("slots/action/disabled/:xauth/1", nil)
		p.dropActions()
		p.put("slots/action/interval/:xauth/1000000", nil)
		p.block("127.0.0.1:7121")
		p.put("slots/action/disabled/:xauth/0", nil)
		p.put("slots/action/create/:xauth/13/1", nil)
		p.tickUntil("a round runs", func(s string) bool { return strings.Contains(s, `"executor": 1`) })
		p.assign(codis.SlotMapping{ID: 0, GroupID: 1}, codis.SlotMapping{ID: 1, GroupID: 1})
	case "110-stats-after-assign-over-migrating":
		close(p.blocked)
		p.tickUntil("the error is shown", func(s string) bool { return strings.Contains(s, "[ERROR] Slot[0013]") })
	case "112-group-del-last-server-in-use":
		p.assign(codis.SlotMapping{ID: 1000, GroupID: 9})
	case "113-group-del-last-server":
		p.assign(codis.SlotMapping{ID: 1000, GroupID: 3})
	case "116-proxy-create-unreachable":
		p.put("slots/action/interval/:xauth/0", nil)
		p.put("slots/action/create/:xauth/400/3", nil) // a migration that ends well takes the error away
		p.idle()
		p.put("group/resync-all/:xauth", nil)
		p.tickUntil("servers that are gone are forgotten", func(s string) bool { return !strings.Contains(s, "127.0.0.1:714") && !strings.Contains(s, "ERROR") })
	case "118-proxy-create":
		p.startProxy("127.0.0.1:11082", "127.0.0.1:19002")
	case "127-stats-dead-proxy":
		p.until("the proxy that was removed exits", func() bool { p.hand.advance(time.Second); return !p.proxies[2].Alive() })
		if err := p.proxies[2].Restart(); err != nil {
			p.Fatal(err)
		}
		p.put("proxy/create/:xauth/127.0.0.1:11082", nil)
		p.proxies[2].Kill()
		p.tickUntil("its death is noticed", func(s string) bool { return strings.Contains(s, "connection refused") })
	case "138-group-resync-all-3":
		p.put("group/promote/:xauth/3/127.0.0.1:7131", nil)
	case "139-sentinel-add-unreachable":
		p.tickUntil("the proxy that was removed is forgotten", func(s string) bool { return !strings.Contains(s, tokens["127.0.0.1:11082"]) })
	case "140-sentinel-add":
		p.sentinel("127.0.0.1:27401")
		p.sentinel("127.0.0.1:27402")
	case "143-stats-sentinel-out-of-sync":
		p.put("group/action/create/:xauth/127.0.0.1:7132", nil)
	case "145-stats-sentinel":
		p.synced("127.0.0.1:7132")
		p.tickUntil("the sentinels were asked", func(s string) bool {
			return strings.Count(s, `"sentinel": {`) == 2 && strings.Count(s, `"3": "127.0.0.1:7131"`) == 3
		})
	case "148-proxy-stats-with-sentinel":
		p.until("the proxy has asked the sentinels", func() bool {
			p.hand.advance(time.Second)
			_, b := p.proxies[0].Do("GET", "/proxy/stats", nil)
			return strings.Contains(string(b), `"masters"`)
		})
	case "151-sentinel-del-dead":
		p.byAddr["127.0.0.1:27401"].stop()
	case "166-px-forcegc":
		p.ask(p.proxies[0], "SET k v")
	case "178-px-stats-not-online":
		if err := p.proxies[2].Restart(); err != nil {
			p.Fatal(err)
		}
	case "180-locked-overview":
		p.second = p.startDashboard("127.0.0.1:18081")
	}
}

// dropActions takes back what is queued.
func (p *play) dropActions() {
	p.Helper()
	slots, err := p.dashboard.Mapping()
	if err != nil {
		p.Fatal(err)
	}
	for _, m := range slots {
		if m.Action.State == "pending" {
			p.put(fmt.Sprintf("slots/action/remove/:xauth/%d", m.ID), nil)
		}
	}
}

// sentinel starts one that watches what was recorded.
func (p *play) sentinel(addr string) {
	var groups map[string]struct {
		Master map[string]string
		Slaves []map[string]string
	}
	for _, r := range recordings(p.TB) {
		if r.Name == "147-sentinel-monitored" {
			if err := json.Unmarshal(r.ResponseBody, &groups); err != nil {
				p.Fatal(err)
			}
		}
	}
	flat := func(m map[string]string) resp.Value {
		var out []string
		for k, v := range m {
			out = append(out, k, v)
		}
		return resp.Texts(out...)
	}
	p.server(addr).script(func(args []string) (resp.Value, bool) {
		switch strings.ToLower(strings.Join(args[:min(2, len(args))], " ")) {
		case "info":
			return resp.Text("redis_version:3.2.11\r\nredis_mode:sentinel\r\nprocess_id:9188\r\nrun_id:c1\r\ntcp_port:27401\r\nuptime_in_seconds:8\r\n" +
				"instantaneous_ops_per_sec:7\r\nsentinel_masters:3\r\nmaster0:name=demo-3,status=ok,address=127.0.0.1:7131,slaves=0,sentinels=2\r\n"), true
		case "sentinel masters":
			var out []resp.Value
			for _, g := range groups {
				out = append(out, flat(g.Master))
			}
			return resp.List(out...), true
		case "sentinel slaves":
			var out []resp.Value
			for _, s := range groups[args[2]].Slaves {
				out = append(out, flat(s))
			}
			return resp.List(out...), true
		case "sentinel get-master-addr-by-name":
			return resp.Texts("127.0.0.1", "7111"), true
		}
		return resp.OK(), args[0] == "SENTINEL"
	})
}

// play sends one request and compares the answer.
func (p *play) play(r recording) []string {
	p.Helper()
	var body io.Reader
	if text, ok := asText(r.RequestBody); ok {
		body = strings.NewReader(text)
	} else if string(r.RequestBody) != "null" {
		body = bytes.NewReader(r.RequestBody)
	}
	path, part, _ := strings.Cut(strings.Replace(r.Path, "714x", "7141", 1), "#")
	req, err := http.NewRequestWithContext(p.Context(), r.Method, "http://"+p.addrs[r.Host]+path, body)
	if err != nil {
		p.Fatal(err)
	}
	tr := &http.Transport{DisableKeepAlives: true, DisableCompression: true}
	answer, err := tr.RoundTrip(req)
	if err != nil {
		return []string{err.Error()}
	}
	defer answer.Body.Close()
	got, err := io.ReadAll(answer.Body)
	if err != nil {
		return []string{err.Error()}
	}
	var problems []string
	if answer.StatusCode != r.Status {
		problems = append(problems, fmt.Sprintf("status %d is wanted, not %d %s", r.Status, answer.StatusCode, got))
	}
	if r.ContentType != nil && answer.Header.Get("Content-Type") != *r.ContentType {
		problems = append(problems, fmt.Sprintf("content type %q", answer.Header.Get("Content-Type")))
	}
	if answer.Header.Get("Location") != r.Location {
		problems = append(problems, fmt.Sprintf("location %q", answer.Header.Get("Location")))
	}
	return append(problems, bodyDifferences(r, part, got)...)
}

func bodyDifferences(r recording, part string, got []byte) []string {
	if text, ok := asText(r.ResponseBody); ok && text != "OK" {
		want, _, cut := strings.Cut(text, "</title>") // the page of a panic goes on with its style
		if have, _, _ := strings.Cut(string(got), "</title>"); have != want || !cut && string(got) != text {
			return []string{fmt.Sprintf("%q is wanted, not %q", text, got)}
		}
		return nil
	}
	want, err := parse(r.ResponseBody)
	if err != nil {
		return []string{err.Error()}
	}
	have, err := parse(got)
	if err != nil {
		return []string{fmt.Sprintf("%v in %q", err, got)}
	}
	if part == "slots[0]" {
		want, have = want.(*object).values[part], have.(*object).values["slots"].([]any)[0]
	}
	return differences("", want, have)
}

func asText(raw json.RawMessage) (string, bool) {
	var s string
	if bytes.HasPrefix(raw, []byte(`"`)) && json.Unmarshal(raw, &s) == nil {
		return s, true
	}
	return "", false
}

// TestAnswersAreIndentedByFour: also the bytes between the values are Codis'.
func TestAnswersAreIndentedByFour(t *testing.T) {
	w := newWorld(t, 1)
	_, b := w.proxies[0].Do("GET", "/proxy/slots", nil)
	want := fmt.Sprintf("[\n    {\n        \"id\": 0,\n        \"backend_addr\": %q,\n        \"backend_addr_group_id\": 1,\n        \"forward_method\": 1\n    },\n    {\n", w.servers[0].addr)
	if !strings.HasPrefix(string(b), want) {
		t.Errorf("%.200s", b)
	}
	_, d := w.dashboard.Do("GET", "/topom/slots", nil)
	if !slices.Equal(b, d) {
		t.Error("the dashboard's view and the proxy's table differ")
	}
}

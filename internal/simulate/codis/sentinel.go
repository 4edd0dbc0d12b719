package codis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"runbook/internal/simulate/resp"
)

// What a dashboard tells sentinels, by its default configuration.
const (
	sentinelTimeout   = 10 * time.Second
	sentinelQuorum    = 2
	sentinelParallel  = 1
	sentinelDownAfter = 30 * time.Second
	sentinelFailover  = 5 * time.Minute
	sentinelPoll      = 5 * time.Second
)

// sentinelGroup is a group as a sentinel watches it.
type sentinelGroup struct {
	Master map[string]string   `json:"master"`
	Slaves []map[string]string `json:"slaves,omitempty"`
}

// sentinelWatch is what sentinels say of the masters. Their fail-overs are shown and not followed.
type sentinelWatch struct {
	masters map[int]string // nil while nothing is watched
	cancel  context.CancelFunc
}

func (t *topom) addSentinel(addr string) error {
	return t.locked(func() error {
		s := t.cache.sentinels
		if slices.Contains(s.Servers, addr) {
			return tracef("sentinel-[%s] already exists", addr)
		}
		if err := t.withSentinel(addr, func(ctx context.Context, c *serverClient) error {
			_, err := c.do(ctx, "SENTINEL", "flushconfig")
			return err
		}); err != nil {
			return err
		}
		t.cache.dirtySentinels()
		s.Servers, s.OutOfSync = append(s.Servers, addr), true
		return t.saveSentinels(s)
	})
}

func (t *topom) removeSentinel(addr string, force bool) error {
	return t.locked(func() error {
		s := t.cache.sentinels
		i := slices.Index(s.Servers, addr)
		if i < 0 {
			return tracef("sentinel-[%s] not found", addr)
		}
		t.cache.dirtySentinels()
		s.OutOfSync = true
		if err := t.saveSentinels(s); err != nil {
			return err
		}
		if t.withSentinel(addr, t.forgetAll) != nil && !force {
			return tracef("remove sentinel %s failed", addr)
		}
		s.Servers = slices.Delete(slices.Clone(s.Servers), i, i+1)
		return t.saveSentinels(s)
	})
}

// resyncSentinels has every sentinel watch every group's master, and tells the proxies whom to ask.
func (t *topom) resyncSentinels() error {
	return t.locked(func() error {
		s := t.cache.sentinels
		t.cache.dirtySentinels()
		s.OutOfSync = true
		if err := t.saveSentinels(s); err != nil {
			return err
		}
		_ = t.allSentinels(t.forgetAll)
		if err := t.allSentinels(t.monitor); err != nil {
			return err
		}
		t.rewatch(s.Servers)
		proxies := t.sortedProxies()
		errs := make([]error, len(proxies))
		var wg sync.WaitGroup
		for i, p := range proxies {
			wg.Go(func() { errs[i] = t.client(p).call(t.ctx, "PUT", "sentinels", s, nil) })
		}
		wg.Wait()
		for i, err := range errs {
			if err != nil {
				return tracef("proxy-[%s] sentinel failed", proxies[i].Token)
			}
		}
		s.OutOfSync = false
		return t.saveSentinels(s)
	})
}

// sentinelsOutOfSync notes that the groups have changed since the sentinels were told.
func (t *topom) sentinelsOutOfSync() error {
	s := t.cache.sentinels
	if len(s.Servers) == 0 {
		return nil
	}
	t.cache.dirtySentinels()
	s.OutOfSync = true
	return t.saveSentinels(s)
}

// sentinelsForget has the sentinels watch a group no longer, so that they do not undo a promotion.
func (t *topom) sentinelsForget(gid int) error {
	if err := t.sentinelsOutOfSync(); err != nil || len(t.cache.sentinels.Servers) == 0 {
		return err
	}
	_ = t.allSentinels(func(ctx context.Context, c *serverClient) error { return c.forget(ctx, []string{t.nodeName(gid)}) })
	delete(t.watch.masters, gid)
	return nil
}

func (t *topom) nodeName(gid int) string { return fmt.Sprintf("%s-%d", t.opts.Product, gid) }

func (t *topom) allSentinels(f func(context.Context, *serverClient) error) error {
	errs := gather(keysOf(t.cache.sentinels.Servers), func(addr string, _ struct{}) error { return t.withSentinel(addr, f) })
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func keysOf(names []string) map[string]struct{} {
	out := map[string]struct{}{}
	for _, n := range names {
		out[n] = struct{}{}
	}
	return out
}

func (t *topom) withSentinel(addr string, f func(context.Context, *serverClient) error) error {
	ctx, cancel := t.within(t.ctx, sentinelTimeout)
	defer cancel()
	c, err := t.dialServer(ctx, addr, "")
	if err != nil {
		return err
	}
	defer c.close()
	return f(ctx, c)
}

func (t *topom) forgetAll(ctx context.Context, c *serverClient) error {
	masters, err := c.masters(ctx, t.opts.Product)
	if err != nil {
		return err
	}
	var names []string
	for gid := range masters {
		names = append(names, t.nodeName(gid))
	}
	return c.forget(ctx, names)
}

func (c *serverClient) forget(ctx context.Context, names []string) error {
	for _, name := range names {
		v, err := c.do(ctx, "SENTINEL", "get-master-addr-by-name", name)
		if err != nil {
			return err
		}
		if v.Kind == resp.Null {
			continue
		}
		if _, err := c.do(ctx, "SENTINEL", "remove", name); err != nil {
			return err
		}
	}
	return nil
}

func (t *topom) monitor(ctx context.Context, c *serverClient) error {
	var names []string
	for _, g := range t.sortedGroups() {
		names = append(names, t.nodeName(g.ID))
	}
	if err := c.forget(ctx, names); err != nil {
		return err
	}
	for _, g := range t.sortedGroups() {
		if len(g.Servers) == 0 {
			continue
		}
		host, port, err := splitAddr(g.Servers[0].Addr)
		if err != nil {
			return trace(err)
		}
		name := t.nodeName(g.ID)
		if _, err := c.do(ctx, "SENTINEL", "monitor", name, host, port, strconv.Itoa(sentinelQuorum)); err != nil {
			return err
		}
		set := []string{
			"SENTINEL", "set", name, "parallel-syncs", strconv.Itoa(sentinelParallel),
			"down-after-milliseconds", millis(sentinelDownAfter), "failover-timeout", millis(sentinelFailover),
		}
		if t.opts.ProductAuth != "" {
			set = append(set, "auth-pass", t.opts.ProductAuth)
		}
		if _, err := c.do(ctx, set...); err != nil {
			return err
		}
	}
	return nil
}

// masters are the groups of a product that a sentinel watches.
func (c *serverClient) masters(ctx context.Context, product string) (map[int]map[string]string, error) {
	v, err := c.do(ctx, "SENTINEL", "masters")
	if err != nil {
		return nil, err
	}
	out := map[int]map[string]string{}
	for _, it := range v.Items {
		m := pairs(it)
		number, ok := strings.CutPrefix(m["name"], product+"-")
		if gid, err := strconv.Atoi(number); ok && err == nil {
			out[gid] = m
		}
	}
	return out, nil
}

func pairs(v resp.Value) map[string]string {
	m := map[string]string{}
	for i := 0; i+1 < len(v.Items); i += 2 {
		m[v.Items[i].String()] = v.Items[i+1].String()
	}
	return m
}

func (t *topom) sentinelGroups(ctx context.Context, c *serverClient) (map[string]*sentinelGroup, error) {
	masters, err := c.masters(ctx, t.opts.Product)
	if err != nil {
		return nil, err
	}
	out := map[string]*sentinelGroup{}
	for gid, m := range masters {
		v, err := c.do(ctx, "SENTINEL", "slaves", t.nodeName(gid))
		if err != nil {
			return nil, err
		}
		g := &sentinelGroup{Master: m}
		for _, it := range v.Items {
			g.Slaves = append(g.Slaves, pairs(it))
		}
		out[t.nodeName(gid)] = g
	}
	return out, nil
}

func (t *topom) askSentinel(ctx context.Context, addr string) (*redisStats, error) {
	c, err := t.dialServer(ctx, addr, "")
	if err != nil {
		return nil, err
	}
	defer c.close()
	v, err := c.do(ctx, "INFO")
	if err != nil {
		return nil, err
	}
	groups, err := t.sentinelGroups(ctx, c)
	return &redisStats{Stats: fieldsOf(v.String()), Sentinel: groups}, err
}

func (t *topom) sentinelInfo(addr string) answer {
	return t.show(func() (info any, err error) {
		err = t.withSentinel(addr, func(ctx context.Context, c *serverClient) error {
			v, err := c.do(ctx, "INFO")
			info = fieldsOf(v.String())
			return err
		})
		return info, err
	})
}

func (t *topom) monitored(addr string) answer {
	return t.show(func() (groups any, err error) {
		err = t.withSentinel(addr, func(ctx context.Context, c *serverClient) error {
			groups, err = t.sentinelGroups(ctx, c)
			return err
		})
		return groups, err
	})
}

// rewatch begins to ask the sentinels for the masters. The caller holds the mutex.
func (t *topom) rewatch(servers []string) {
	t.watch.rewatch(t.process, t.opts.Product, servers, func(masters map[int]string) {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.watch.masters = masters
	})
}

func (w *sentinelWatch) rewatch(p *process, product string, servers []string, found func(map[int]string)) {
	if w.cancel != nil {
		w.cancel()
	}
	w.masters, w.cancel = nil, nil
	if len(servers) == 0 {
		return
	}
	ctx, cancel := context.WithCancel(p.ctx)
	w.cancel = cancel
	servers = slices.Clone(servers)
	p.run(func() {
		defer cancel()
		for p.gate.pass(ctx) {
			if masters, err := p.askMasters(ctx, product, servers); err == nil && ctx.Err() == nil {
				found(masters)
			}
			if p.clock.Sleep(ctx, sentinelPoll) != nil {
				return
			}
		}
	})
}

// askMasters is the word of the sentinels with the latest epoch, where most of them answer.
func (p *process) askMasters(ctx context.Context, product string, servers []string) (map[int]string, error) {
	masters, epochs := map[int]string{}, map[int]int64{}
	voted := 0
	for _, addr := range servers {
		said, err := p.mastersOf(ctx, addr, product)
		if err != nil {
			continue
		}
		voted++
		for gid, m := range said {
			epoch, err := strconv.ParseInt(m["config-epoch"], 10, 64)
			if at, known := epochs[gid]; err == nil && (!known || at < epoch) {
				masters[gid], epochs[gid] = net.JoinHostPort(m["ip"], m["port"]), epoch
			}
		}
	}
	if voted < 1+len(servers)/2 {
		return nil, errors.New("no majority of sentinels")
	}
	return masters, nil
}

func (p *process) mastersOf(ctx context.Context, addr, product string) (map[int]map[string]string, error) {
	ctx, cancel := p.within(ctx, sentinelPoll)
	defer cancel()
	c, err := p.dialServer(ctx, addr, "")
	if err != nil {
		return nil, err
	}
	defer c.close()
	return c.masters(ctx, product)
}

// short is a duration as configurations have it: 5m, not 5m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	return strings.TrimSuffix(s, "h0m")
}
